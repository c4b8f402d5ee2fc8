"""The prompts of a batch, encoded."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from sdcorrect.core.text import Text
from sdcorrect.translate.method import Method
from sdcorrect.translate.request import Request

if TYPE_CHECKING:
    from sdcorrect.translate.translator import Translator


class Texts:
    """The encoded prompts of a batch; all have as many chunks as the longest of them needs."""

    def __init__(self, translator: "Translator", requests: Sequence[Request]) -> None:
        self._model, self._requests = translator.model, requests
        self._chunks = max(
            translator.count_chunks(r.prompt, r.negative_prompt, r.source_prompt) for r in requests
        )
        self.null = self.read([""] * len(requests))
        told = [r.source_prompt for r in requests if r.source_prompt is not None]
        self._source = self.read(told) if len(told) == len(requests) else None

    def read(self, prompts: Sequence[str], guidance_scale: float = 1.0) -> Text:
        """The encoded `prompts`, one for each picture."""
        size = self._requests[0].image.size
        return self._model.text(prompts, size, chunks=self._chunks, guidance_scale=guidance_scale)

    def told(self, told: Literal["empty", "source"]) -> Text:
        """The empty prompt or the source prompts."""
        if told == "empty":
            return self.null
        assert self._source is not None, "recipes that need a source prompt have one"
        return self._source

    def cond(self, method: Method) -> Text:
        return self.read([r.prompt for r in self._requests], method.guidance_scale)

    def uncond(self, method: Method) -> Text:
        if method.recipe.unconditional == "source":
            return self.told("source")
        return self.read([method.negative_prompt_for(r.negative_prompt) for r in self._requests])

    def of_source(self, method: Method, cond: Text) -> Text:
        """The prompts of the source's branch; `cond` if these are the target's."""
        told = method.recipe.source_is_told()
        return cond if told == "target" else self.told(told)
