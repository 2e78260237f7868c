-- Everyone waits between two requests, 20 ms on average: a steady load, not as much as can be.

function delay()
  return math.random(10, 30)
end
