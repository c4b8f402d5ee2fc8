"""A job's pictures, one after the other, dissected by one model."""

from collections.abc import Sequence

from sdcorrect.config import Job
from sdcorrect.dissect.about import Setup, Subject, put_back_by
from sdcorrect.dissect.choose import EVERYWHERE, choose_blocks, choose_timesteps, place_point
from sdcorrect.dissect.dissection import Dissection, Drawn, dissect, dissectable
from sdcorrect.errors import UsageError
from sdcorrect.inputs.hints import check_hints, hints_of
from sdcorrect.inputs.items import Item, find_items, seed_of
from sdcorrect.inputs.pictures import Picture, Sizing, read_picture
from sdcorrect.models import Model
from sdcorrect.translate import Request, Translator


class Session:
    """Dissects what `job` covers, by its first recipe that has a one-step inversion.

    `blocks` is as recipes name them; without it, all of the decoder's that have attention. `items` are
    the job's pictures, where they are found already.

    Raises:
        UsageError: no pictures, a mask, or the recipe, its blocks or `blocks` do not fit the model.
    """

    def __init__(
        self, job: Job, model: Model, blocks: str | None, items: list[Item] | None = None
    ) -> None:
        self.job = job
        self.items = find_items(job) if items is None else items
        if job.mask is not None:
            raise UsageError(
                "mask: dissect looks at whole pictures; leave it out, such as by --set mask=null"
            )
        check_hints(job.controlnets)
        self.sizing = Sizing(job.resize, job.size or model.native_size, model.multiple)
        one_step = [recipe for recipe in job.recipes if recipe.inversion == "one-step"]
        recipe = (one_step or job.recipes)[0]
        self.translator = Translator.of_job(job, model, [recipe])
        method = dissectable(self.translator)
        _, timesteps = method.solver(model.scheduler)
        self.timesteps: list[int] = timesteps.tolist()
        self.blocks = choose_blocks(blocks or EVERYWHERE, model.layout)
        self.settings = Setup(
            model.name,
            recipe.name,
            method.strength,
            method.steps,
            method.guidance_scale,
            method.scheduler,
            method.plan.timestep,
            put_back_by(method.plan.injections),
            put_back_by(i for i in method.plan.injections if i.statistics == "own"),
        )

    def read(self, item: Item) -> Picture:
        """Raises PictureError where `item` is no picture that the model takes."""
        return read_picture(item, self.sizing, self.job.input)

    def choose_drawn(self, picture: Picture, timesteps: Sequence[int], point: str) -> Drawn:
        """What is drawn of `picture`.

        Raises:
            UsageError: a timestep is not computed, or the point lies outside.
        """
        fractions = place_point(point, picture.whole, self.sizing.kept(picture.whole))
        return Drawn(choose_timesteps(timesteps, self.timesteps), fractions)

    def dissect(self, picture: Picture, drawn: Drawn | None = None) -> tuple[Subject, Dissection]:
        """Dissect one picture, from the noise that `sdcorrect translate` would begin with.

        Raises:
            PictureError: it has no hint, or a tensor is not finite.
        """
        item, seed = picture.item, seed_of(picture.item, picture.sha256, self.job.seeds[0])
        asked = Request(
            picture.image,
            seed,
            item.prompt,
            item.negative_prompt,
            hints=hints_of(picture, self.job.controlnets, self.sizing, self.job.input.max_pixels),
        )
        method = self.translator.methods[self.settings.method]
        negative = method.negative_prompt_for(item.negative_prompt)
        subject = Subject(item.key, picture.sha256, seed, item.prompt, negative)
        return subject, dissect(self.translator, asked, self.blocks, drawn)
