"""Answers that no vector holds, written after what servers are known to say: kind, fallback, status, body."""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["MORE"]


def _error(message: str, **more: Any) -> str:
    return json.dumps({"error": {"message": message, **more}})


MORE: Final[dict[str, tuple[str, bool, int, str]]] = {
    # Refusals of the JSON mode, in other words and other wrappings.
    "go decoder": ("unsupported", True, 400, _error('json: unknown field "response_format"')),
    "go type": (
        "unsupported",
        True,
        400,
        _error(
            "json: cannot unmarshal object into Go struct field ChatRequest.response_format of type string"
        ),
    ),
    "old openai": (
        "unsupported",
        True,
        400,
        _error("Unrecognized request argument supplied: response_format"),
    ),
    "unknown parameter": (
        "unsupported",
        True,
        400,
        _error("Unknown parameter: 'response_format'.", param="response_format", code="unknown_parameter"),
    ),
    "invalid value": (
        "unsupported",
        True,
        400,
        _error(
            "Invalid value: 'json_schema'. Supported values are: 'text' and 'json_object'.",
            param="response_format.type",
            code="invalid_value",
        ),
    ),
    "pydantic literal": (
        "unsupported",
        True,
        422,
        json.dumps(
            {
                "detail": [
                    {
                        "type": "literal_error",
                        "loc": ["body", "response_format", "type"],
                        "msg": "Input should be 'text' or 'json_object'",
                        "input": "json_schema",
                    }
                ]
            }
        ),
    ),
    "pydantic text": (
        "unsupported",
        True,
        400,
        _error(
            "1 validation error for ChatCompletionRequest\nresponse_format.type\n  Input should be 'text' or "
            "'json_object' [type=literal_error, input_value='json_schema', input_type=str]"
        ),
    ),
    "python list in a string": (
        "unsupported",
        True,
        400,
        json.dumps(
            {
                "object": "error",
                "message": "[{'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), "
                "'msg': \"Input should be 'text' or 'json_object'\", 'input': 'json_schema'}]",
                "code": 400,
            }
        ),
    ),
    "python dictionary after a prefix": (
        "unsupported",
        True,
        400,
        _error(
            "litellm.BadRequestError: OpenAIException - Error code: 400 - {'error': {'message': "
            "\"'response_format' of type 'json_schema' is not supported with this model\", 'param': None}}"
        ),
    ),
    "JSON after a prefix": (
        "unsupported",
        True,
        400,
        _error(
            'litellm.BadRequestError: XException - {"error":{"message":"response_format is not supported"}}'
        ),
    ),
    "gemini unknown name": (
        "unsupported",
        True,
        400,
        (
            '[{"error":{"code":400,"message":"Invalid JSON payload received. Unknown name \\"responseSchema\\" at '
            '\'generation_config\': Cannot find field.","status":"INVALID_ARGUMENT"}}]'
        ),
    ),
    "too many states": (
        "unsupported",
        True,
        400,
        _error("The specified schema produces a constraint that has too many states for serving.", code=400),
    ),
    "groq property": ("unsupported", True, 400, _error("property 'response_format' is unsupported")),
    "serde variant": (
        "unsupported",
        True,
        422,
        _error(
            "Failed to deserialize the JSON body into the target type: response_format.type: unknown variant "
            "`json_schema`, expected `text` or `json_object` at line 1 column 90"
        ),
    ),
    "serde unknown field": (
        "unsupported",
        True,
        422,
        (
            "Failed to deserialize the JSON body into the target type: unknown field `response_format`, expected one "
            "of `model`, `messages` at line 1 column 20"
        ),
    ),
    "plain text": ("unsupported", True, 400, "response_format is not supported by this server"),
    "500 with both": (
        "unsupported",
        True,
        500,
        _error("structured outputs are not implemented for this backend"),
    ),
    "anthropic": (
        "unsupported",
        True,
        400,
        json.dumps(
            {
                "type": "error",
                "error": {
                    "type": "invalid_request_error",
                    "message": "output_config.format: Extra inputs are not permitted",
                },
            }
        ),
    ),
    "error inside a 200": (
        "unsupported",
        True,
        200,
        _error("response_format json_schema is not supported", code=400),
    ),
    "the mode and the model": (
        "unsupported",
        True,
        400,
        _error("The model `acme-1` does not support response_format json_schema", param="model"),
    ),
    "a list of strings in a string": (
        "unsupported",
        True,
        400,
        _error("[\"At body -> response_format -> type: Input should be 'text' or 'regex'\"]"),
    ),
    "a detail inside a message": (
        "unsupported",
        True,
        422,
        json.dumps(
            {
                "object": "error",
                "message": {
                    "detail": [
                        {
                            "loc": ["body", "response_format", "type"],
                            "msg": "Input should be 'text'",
                            "type": "enum",
                        }
                    ]
                },
            }
        ),
    ),
    "a grammar that cannot be read": ("unsupported", True, 400, _error("Failed to parse grammar", code=400)),
    "no grammars": ("unsupported", True, 422, '{"error":"Input validation error: grammar is not supported"}'),
    "the system says so": (
        "unsupported",
        True,
        400,
        _error("The system does not support response_format json_schema"),
    ),
    "JSON that the model did not manage": (
        "content",
        True,
        400,
        '{"errors":[{"message":"AiError: JSON Mode couldn\'t be met","code":5024}]}',
    ),
    # Faults that talk of the JSON mode: never a fallback.
    "other parameter, by name": (
        "other",
        False,
        400,
        _error(
            "Unsupported parameter: 'max_tokens' is not supported when response_format is json_schema. Use "
            "'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        ),
    ),
    "other parameter, without `param`": (
        "other",
        False,
        400,
        _error("'temperature' is not supported when response_format is json_schema"),
    ),
    "other parameter, after an echo": (
        "other",
        False,
        400,
        _error(
            "request {'model': 'm', 'response_format': {'type': 'json_schema'}} refused: seed is not supported"
        ),
    ),
    "other parameter, first of two sentences": (
        "other",
        False,
        400,
        _error("logprobs is not available for this model. Your response_format was json_schema."),
    ),
    "location": ("other", False, 400, _error("User location is not supported for the API use.", code=400)),
    "other parameter in the list": (
        "other",
        False,
        422,
        json.dumps(
            {
                "detail": [
                    {"type": "missing", "loc": ["body", "messages"], "msg": "Field required"},
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "seed"],
                        "msg": "Extra inputs are not permitted",
                        "input": {"response_format": "unsupported"},
                    },
                ]
            }
        ),
    ),
    "pydantic text about another": (
        "other",
        False,
        400,
        _error(
            "1 validation error for ChatCompletionRequest\nseed\n  Extra inputs are not permitted "
            "[type=extra_forbidden, input_value={'response_format': 'json_schema'}, input_type=dict]"
        ),
    ),
    "our name is missing": (
        "other",
        False,
        400,
        _error("Missing required parameter: 'response_format.json_schema.name'.", param="response_format"),
    ),
    "our schema is missing, as a list": (
        "other",
        False,
        422,
        json.dumps(
            {
                "detail": [
                    {"type": "missing", "loc": ["body", "response_format", "schema"], "msg": "Field required"}
                ]
            }
        ),
    ),
    "overloaded": ("other", False, 503, _error("json_schema requests are not available: overloaded")),
    "500 in two sentences": (
        "other",
        False,
        500,
        _error("Worker died with a json_schema grammar. Restarting it by hand is not supported."),
    ),
    "502 page": ("other", False, 502, "<html><title>502</title>response_format is not supported</html>"),
    "400 page": ("other", False, 400, "<html><body>response_format is not supported</body></html>"),
    "cut error": ("other", False, 400, '{"error": {"message": "response_format is not supp'),
    "route": ("other", False, 404, '{"detail":"Not Found"}'),
    "go route": ("other", False, 404, "404 page not found"),
    "data policy": (
        "other",
        False,
        404,
        _error("No endpoints found matching your data policy (Free model publication).", code=404),
    ),
    "empty": ("other", False, 400, ""),
    "nothing with a 200": ("other", False, 200, ""),
    "page with a 200": ("other", False, 200, "<html>hello</html>"),
    "another object with a 200": ("other", False, 200, '{"ok": true}'),
    "names twice": ("other", False, 200, '{"choices": [], "choices": [{"message": {"content": "x"}}]}'),
    "deep": ("other", False, 200, "[" * 10_000),
    "redirect": ("other", False, 302, ""),
    # Keys.
    "bad key in a 400": ("auth", False, 400, _error("Incorrect API key provided", code="invalid_api_key")),
    "bad key in a 500": (
        "auth",
        False,
        500,
        _error("litellm.AuthenticationError: response_format unsupported"),
    ),
    "no key in a 400": ("auth", False, 400, _error("You must provide an API key")),
    "key inside a 200": ("auth", False, 200, _error("Invalid API key", code="invalid_api_key")),
    "gemini expired": ("auth", False, 400, _error("API key expired. Please renew the API key.", code=400)),
    "firewall": ("auth", False, 403, "<html>Attention required</html>"),
    "401 with nothing": ("auth", False, 401, ""),
    # Models.
    "anthropic model": (
        "model",
        False,
        404,
        json.dumps({"type": "error", "error": {"type": "not_found_error", "message": "model: claude-nope"}}),
    ),
    "mistral model": (
        "model",
        False,
        400,
        '{"object":"error","message":"Invalid model: nope","code":"1500"}',
    ),
    "decommissioned": (
        "model",
        False,
        400,
        _error(
            "The model `x` has been decommissioned and is no longer supported.", code="model_decommissioned"
        ),
    ),
    "nothing loaded": (
        "model",
        False,
        404,
        _error("No models loaded. Please load a model in the developer page."),
    ),
    "bad model id": ("model", False, 400, _error("acme/nope is not a valid model ID", code=400)),
    "azure": (
        "model",
        False,
        404,
        _error("The API deployment for this resource does not exist.", code="DeploymentNotFound"),
    ),
    "gemini model": (
        "model",
        False,
        404,
        (
            '[{"error":{"code":404,"message":"models/nope is not found for API version v1main, or is not supported '
            'for generateContent.","status":"NOT_FOUND"}}]'
        ),
    ),
    # Limits and time.
    "402": ("rate", False, 402, "response_format is not supported on the free plan"),
    "429 with the words": (
        "rate",
        False,
        429,
        _error("response_format json_schema is not available: rate limit"),
    ),
    "rate inside a 200": ("rate", False, 200, _error("Rate limit exceeded", code="rate_limit_exceeded")),
    "rate in a string": ("rate", False, 200, _error("slow down", code="429")),
    "524": ("timeout", False, 524, "<html>response_format is not supported</html>"),
    "overloaded inside a 200": ("other", False, 200, _error("busy", type="overloaded_error")),
}
