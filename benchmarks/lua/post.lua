-- POST with a body of so many bytes: wrk … -- BYTES

local whole

function init(arguments)
  wrk.headers["Content-Type"] = "application/octet-stream"
  whole = wrk.format("POST", nil, nil, string.rep("x", tonumber(arguments[1])))
end

function request()
  return whole
end
