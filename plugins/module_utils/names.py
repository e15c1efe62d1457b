# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The names by which a user knows a module's options, for its messages (option names of the doc fragment names)."""

from __future__ import annotations


def named(module, option):
    """Return what a message calls an option: the name that its caller gave, such as a role's variable, or the option's own."""
    return module.params["names"].get(option, option)
