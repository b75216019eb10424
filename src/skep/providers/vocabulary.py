"""The words that servers tell a fault by.

Source: secrets and providers, section B4, rules 7 to 11. Collected from what servers are known to say; each list
is a family of phrases, so that the next server that says it a little otherwise is understood as well.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "ABOUT_PARAMETER",
    "ABOUT_SCHEMA",
    "AUTH",
    "CONTEXT",
    "CREDENTIALS",
    "GENERATION",
    "MODEL",
    "MODEL_REFUSED",
    "NAMES_OTHER_FIELD",
    "OF_SUBJECT",
    "OWN_FAULT",
    "POLICY",
    "PROMPT",
    "QUOTA",
    "REFUSAL",
    "REFUSING_STATUS",
    "any_of",
]


def any_of(*patterns: str) -> re.Pattern[str]:
    """Return a pattern that finds any of `patterns`, in any case."""
    return re.compile("|".join(patterns), re.IGNORECASE)


QUOTA: Final = any_of(r"(?<!check )quota", "credit", "usage limit", "billing", "balance", "payment", "spend")
_KEY_WORDS: Final = (
    r"(?:api[ _-]?keys?|auth\w{0,20}|access[ _-]?token|bearer(?: token)?|credentials?|x-api-key)"
)
CREDENTIALS: Final = any_of(rf"(?:multiple|several|more than one|two) (?:auth\w* )?{_KEY_WORDS}")
AUTH: Final = any_of(
    rf"(?:invalid|incorrect|missing|wrong|expired|bad|revoked|unknown|malformed|disabled|unrecognized|no|without)"
    rf"[ _-](?:\w+ )?{_KEY_WORDS}",
    rf"{_KEY_WORDS}\b[^.\n]{{0,40}}?\b"
    r"(?:not valid|invalid|missing|required|expired|revoked|incorrect|not found|disabled|not provided|wrong)\b",
    rf"(?:did not|didn't|must|please) (?:provide|pass|supply|set|specify) (?:an?|your|the) (?:valid )?{_KEY_WORDS}",
    r"api_?key_?(?:invalid|missing|expired)|authentication[ _]?(?:error|fail\w*|required)|authenticationerror",
    r"\bunauthenticated\b|\bunauthorized\b|invalid_authentication|not authenticated|token_not_found",
    r"invalidapikey|security token",
    r"could not (?:authenticate|validate (?:your )?credentials)",
)
GENERATION: Final = any_of(
    "json_validate_failed|tool_use_failed",
    "json mode could(?:n't| not) be met",
    r"failed to (?:generate|validate) (?:valid )?json",
    r"generated json does(?: not|n't) match",
)
CONTEXT: Final = any_of(
    r"context[ _-]?(?:length|size|window|limit)",
    r"(?:maximum|max|available) (?:model )?context",
    "too many (?:input )?tokens",
    "prompt (?:is )?too long",
    r"input (?:is |prompt is |token count |length )?(?:too long|exceeds)",
    "reduce the length of",
    r"exceeds? the (?:maximum |max )?(?:number of |allowed |input )*tokens?",
    "token limit",
)
PROMPT: Final = any_of(r"must (?:contain|include|mention) the word\W+json")
_PART: Final = r"['\"`]?(?:response_format\.|text\.)?(?:json_schema|schema|name|type)(?:\.\w+)?['\"`]?"
OWN_FAULT: Final = any_of(
    rf"{_PART} (?:field |parameter |property )?"
    r"(?:must be (?:provided|specified|set|given|present)|is (?:required|missing))",
    r"missing (?:required )?(?:field|parameter|property|key)s?:? *['\"`]?(?:response_format\.)?"
    r"(?:json_schema|schema|name|type)\b",
    r"missing required (?:field|parameter|property)\W+response_format\.",
)
OF_SUBJECT: Final = {
    "json": r"response[ _-]?formats?|responseformat|response[ _-]?mime[ _-]?type|\bmime[ _-]?type|json[ _-]?schema"
    r"|json[ _-]?object|json[ _-]?mode|structured[ _-]?outputs?|response[ _-]?schema|output_config|output_format"
    r"|guided[ _]\w+|\bgrammars?\b|requested parameters|text\.format|response json|(?:specified|provided|given) schema",
    "tools": r"\btools?\b|tool[ _-]?(?:choice|calls?|calling|use)|function[ _-]?call(?:s|ing)?\b|\bfunctions\b",
    "embeddings": r"\bembed(?:ding|dings|content|s)?\b",
}
REFUSAL: Final = any_of(
    r"not (?:\w+ )?support",
    r"n't support",
    r"unsupported|not_supported",
    r"unavailable|not available|no longer available|not (?:yet )?implemented|not enabled|is disabled",
    r"must be (?:one of|either|['\"`])|expected (?:one of|['\"`])|should be ['\"`]|match any of the expected",
    r"enabled only for|only (?:supported|available|enabled|allowed)|requires? api[ _-]version",
    r"invalid (?:json )?schema for|schema error|could not understand|cannot resolve|too many states|too complex",
    r"not permitted|not allowed|not accepted|not compatible|incompatible|but not both|not recognized|unexpected",
    r"(?:cannot|can't|can not) be (?:used|combined|set|specified)|mutually exclusive",
    r"un(?:known|recognized|expected) (?:\w+ ){0,2}(?:parameter|field|argument|name|key|property|variant|value|type)",
    r"invalid (?:value|type|parameter)|cannot unmarshal|missing field|cannot find field|unable to (?:use|apply)",
    r"requires? --\w|conversion failed|failed to parse grammar|no endpoints found that|leave it unset",
    r"does not accept|unrecognized|unknown variant|extra inputs",
)
_SURE_FIELDS: Final = (
    "temperature|top_p|top_k|max_tokens|max_completion_tokens|stream|stream_options|seed|logprobs|top_logprobs"
    "|logit_bias|presence_penalty|frequency_penalty|parallel_tool_calls|reasoning_effort|service_tier"
)
_OTHER_FIELDS: Final = (
    f"{_SURE_FIELDS}|messages|role|store|n|stop|user|metadata|reasoning|thinking|modalities|prediction|verbosity"
    "|developer|system|input|prompt"
)
_IS_REFUSED: Final = (
    r" (?:parameter |field |value |option )?"
    r"(?:is |are |was |does |do |must |can)(?:be )?(?:not |n't |un|only )"
)
NAMES_OTHER_FIELD: Final = any_of(
    # "Unsupported value: 'temperature' …": the first thing named is what is refused.
    r"(?:unsupported|invalid|unknown|unrecognized|unexpected) (?:request )?"
    rf"(?:parameter|value|argument|field|property|key|name|input)s?(?: supplied)?\W{{1,3}}(?:{_OTHER_FIELDS})\b",
    # "`stream` is not supported when response_format is set"; without quotes only what is no common word.
    rf"['\"`](?:{_OTHER_FIELDS})['\"`]{_IS_REFUSED}",
    rf"(?<![\w'\"`.])(?:{_SURE_FIELDS}){_IS_REFUSED}",
)
_MODEL_NAMED: Final = r"models?\b[^.\n]{0,200}?"
MODEL: Final = any_of(
    rf"{_MODEL_NAMED}(?:not exist|n't exist|not found|could not be found|no longer exists)",
    rf"{_MODEL_NAMED}(?:decommissioned|deprecated|has been (?:removed|retired)|not loaded|not deployed|inaccessible)",
    r"(?:invalid|unknown|no such|nonexistent|unrecognized) model|not a valid model|invalid_model|model_not_",
    r"model identifier is invalid|unable to access model|failed to load model|cannot find model|can't find model",
    r"no endpoints found for|deploymentnotfound|deployment[^.\n]{0,100}does not exist",
    r"no models? (?:is |are )?(?:currently )?loaded|models? (?:is |are )?not loaded|模型不存在",
)
MODEL_REFUSED: Final = any_of(
    rf"{_MODEL_NAMED}(?:not supported|not available|unavailable)", "unsupported model"
)
POLICY: Final = any_of("policy", "guardrail", "privacy", "content_filter", "moderation", "safety")
REFUSING_STATUS: Final = frozenset({400, 404, 405, 415, 422, 500, 501})


ABOUT_SCHEMA: Final = any_of(
    "schema error|invalid (?:json )?schema|could not understand|features not supported|too many states",
    r"too complex|\$ref|cannot resolve|(?:specified|provided|given) (?:json )?schema",
)
ABOUT_PARAMETER: Final = any_of(
    "support parameters?: |unsupported parameter|parameter is un|extra inputs|unknown (?:parameter|name|field)"
)
