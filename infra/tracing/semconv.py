"""Names of spans and their attributes, after OpenTelemetry's semantic conventions, version 1.44.0.

Those of generative AI (`gen_ai.…`) are in development, and since that version in a repository of their own
(https://github.com/open-telemetry/semantic-conventions-genai). Names that the conventions lack begin with `heliostat.`.
"""

from __future__ import annotations

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

SERVICE_NAME = "service.name"
SERVICE_VERSION = "service.version"

HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
ERROR_TYPE = "error.type"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
RESPONSE_MODEL = "gen_ai.response.model"
FIRST_CHUNK_SECONDS = "gen_ai.response.time_to_first_chunk"
TOKENS = {"prompt": "gen_ai.usage.input_tokens", "completion": "gen_ai.usage.output_tokens"}
"""By kind of our metric of tokens."""
OPERATIONS = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion", "/v1/embeddings": "embeddings"}
"""By route."""

MODEL = "heliostat.model"
VERSION = "heliostat.version"
ADAPTER = "heliostat.adapter"
KEY_NAME = "heliostat.key.name"
REQUEST_ID = "heliostat.request_id"
RUN = "heliostat.run"
RANK = "heliostat.rank"
WORKERS = "heliostat.workers"
STEP = "heliostat.step"
LOSS = "heliostat.loss"
TOKENS_TRAINED = "heliostat.tokens"
DATA_SECONDS = "heliostat.data_seconds"
COMMUNICATION_SECONDS = "heliostat.communication_seconds"
BYTES = "heliostat.bytes"
COMMAND = "heliostat.command"
