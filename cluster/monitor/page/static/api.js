// Questions to the server of this page. An error's message is one line that a panel shows.

export async function ask(path, parameters = {}, signal = undefined) {
  let response;
  try {
    response = await fetch(`${path}?${new URLSearchParams(parameters)}`, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server of this page does not answer; heliostat monitor up starts it");
  }
  const answer = await response.json();
  if (!response.ok || answer.status === "error") throw new Error(answer.error || response.statusText);
  return answer.data ?? answer;
}

// [{labels, values: [number or null, one for each time of the range]}]; null where there is no finite number.
export async function range(expression, window, signal) {
  const { start, end, step } = window;
  const { result } = await ask("/api/v1/query_range", { query: expression, start, end, step }, signal);
  return result.map(({ metric, values }) => {
    const found = new Array(Math.round((end - start) / step) + 1).fill(null);
    for (const [time, value] of values) {
      const number = Number(value);
      if (Number.isFinite(number)) found[Math.round((time - start) / step)] = number;
    }
    return { labels: metric, values: found };
  });
}

// As range, with the one value of the window's end.
export async function instant(expression, window, signal) {
  const { result, resultType } = await ask("/api/v1/query", { query: expression, time: window.end }, signal);
  if (resultType === "scalar") return [{ labels: {}, values: [finite(result[1])] }];
  if (resultType !== "vector") throw new Error(`a ${resultType} is not known here`);
  return result.map(({ metric, value }) => ({ labels: metric, values: [finite(value[1])] }));
}

function finite(text) {
  return Number.isFinite(Number(text)) ? Number(text) : null;
}
