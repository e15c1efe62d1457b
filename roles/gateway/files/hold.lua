-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- Action hold POOL SECONDS: a request waits while no server of the pool serves; txn.held has the milliseconds.
core.register_action("hold", { "http-req" }, function(txn, pool, seconds)
    local function now()
        local time = core.now()
        return time.sec * 1000 + time.usec // 1000
    end
    local began = now()
    while txn.f:nbsrv(pool) == 0 and now() - began < seconds * 1000 do
        core.msleep(50)
    end
    txn:set_var("txn.held", now() - began)
end, 2)
