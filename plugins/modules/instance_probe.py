#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: instance_probe
short_description: Probe the address of an instance once
version_added: 1.0.0
description:
  - Asks IOPaint for its model once, and returns the status of the response, whatever it is.
  - C(ansible.builtin.uri) waits for as long as bytes keep coming, and reads responses of any size into memory. A broken instance
    may never end its response.
options:
  url:
    description: Base address of IOPaint.
    type: str
    required: true
  timeout:
    description: Seconds until the response must be complete.
    type: int
    default: 10
  gateway_token_file:
    description:
      - File on the managed host with the token that an instance asks its gateway for. Nothing is sent where it is missing.
    type: path
attributes:
  check_mode:
    support: full
    description: Changes nothing, in check mode or not.
  diff_mode:
    support: none
    description: There is never a difference to show.
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Probe the port of the instance
  iopaint.fleet.instance_probe:
    url: http://127.0.0.1:8080
  register: probe
"""

RETURN = r"""
status:
  description: HTTP status of the response, V(-1) without one.
  returned: always
  type: int
  sample: 200
msg:
  description: What the server said, or why there is no response.
  returned: always
  type: str
  sample: lama
"""

import http.client

from ansible.module_utils import urls
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils import foreign, inpaint

PATH = "/api/v1/model"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 10},
            "gateway_token_file": {"type": "path", "no_log": False},
        },
        supports_check_mode=True,
    )
    url, timeout = module.params["url"].rstrip("/") + PATH, module.params["timeout"]
    headers = inpaint.gateway_headers(module.params["gateway_token_file"])
    session = urls.Request(
        headers=headers, use_proxy=False, timeout=timeout, follow_redirects="none", use_netrc=False, http_agent="iopaint.fleet"
    )
    try:
        status, _reason, _headers, body = foreign.ask(session, "GET", url, seconds=timeout, limit=inpaint.MODEL_LIMIT)
    except (OSError, ValueError, http.client.HTTPException, urls.ConnectionError) as error:
        module.exit_json(changed=False, status=-1, msg=inpaint.explain_failure(f"GET {url}", error, timeout))
    module.exit_json(changed=False, status=status, msg=inpaint.server_text(body))


if __name__ == "__main__":
    main()
