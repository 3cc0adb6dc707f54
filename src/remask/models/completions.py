"""Fill-in-the-middle endpoints (`/fim/completions`) as a target: Mercury of Inception Labs.

A call is a chat of three messages: the text before the gap, the text after it, and the largest
number of tokens to write, as digits. So the meter can cache, reserve and count it like any other
call. Failures, retries and keys are handled as in openai.py and remote.py. The fields are those of
the OpenAPI description of api.inceptionlabs.ai (version 1.0.0); nothing here was run against that
service.
"""

from typing import Any

from remask.models.openai import OpenAITarget, read_body
from remask.types import Chat

MERCURY_URL = "https://api.inceptionlabs.ai/v1"
MERCURY_MODEL = "mercury-edit-2"
MERCURY_KEY = "INCEPTION_API_KEY"


class FimTarget(OpenAITarget):
    """Asks `model` at `base_url` for the text of a gap.

    `stop` always replaces the server's own stop sequences, since Mercury's are meant for code and
    end a fill at the first empty line. `max_tokens` is the largest number of tokens of any call.
    The API description has neither `temperature` nor `seed`; None leaves the field out. All other
    arguments are those of OpenAITarget.
    """

    kind = "fim"
    shape = "fill-in-the-middle completion"
    field = ("text",)

    def __init__(
        self, model: str, base_url: str, api_key: str | None = None, *, stop: tuple[str, ...],
        max_tokens: int, key_env: str = MERCURY_KEY, temperature: float | None = None, **options: Any,
    ) -> None:  # fmt: skip
        """Raises ConfigError for a bad setting or a missing key, BackendError without the SDK."""
        options |= {"key_env": key_env, "temperature": temperature, "max_tokens": max_tokens, "stop": stop}
        # The SDK adds /completions.
        super().__init__(model, f"{base_url.rstrip('/')}/fim", api_key, **options)
        self._max_tokens = max_tokens

    async def _send(self, chat: Chat, settings: dict[str, Any]) -> bytes:
        before, after, tokens = (message.content for message in chat)
        settings = {**settings, "max_tokens": min(int(tokens), self._max_tokens)}
        create = self._client.completions.with_streaming_response.create
        async with create(prompt=before, suffix=after, **settings) as response:
            return await read_body(response)
