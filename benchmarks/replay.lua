-- For wrk: posts the bodies listed in the file BODIES (one path a line) in turn, and prints what came of them as JSON.
local requests, turn = {}, 0

function init()
  for path in io.lines(os.getenv("BODIES")) do
    local file = assert(io.open(path, "rb"))
    local body = file:read("*a")
    file:close()
    table.insert(requests, wrk.format("POST", "/v1/score", { ["content-type"] = "application/json" }, body))
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local failed = summary.errors
  local errors = failed.connect + failed.read + failed.write + failed.status + failed.timeout
  io.write(string.format('{"requests": %d, "seconds": %f, "errors": %d, "median_ms": %f, "p99_ms": %f}\n',
    summary.requests, summary.duration / 1e6, errors, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
