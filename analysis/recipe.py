"""A recipe: the options of the whole analysis under one name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ptychrome.analysis.clustering import ClusterOptions
from ptychrome.analysis.joint import JointOptions
from ptychrome.analysis.mask import MaskOptions
from ptychrome.analysis.options import MlOptions, Options, StackOptions, Stage
from ptychrome.analysis.xanes import XanesOptions

UNMONITORED_ERROR = 0.02  # relative, of the incident intensity of a frame: what beams wander by
PRTF_LEAST_STARTS = 8  # unrelated phases leave 1/√k, which must be below the level of 1/e


class ChemistryOptions(Options):
    """From spectra and phase to chemical maps.

    Attributes
    ----------
    constants : str
        ``chantler`` (xraydb) or ``paper``.
    jump : str
        What the areal density rests on. ``eq1``: the edge jump of eq. (1), 2–4 % too low; ``physical``: that
        jump times one factor from the summed spectrum, see `areal_density.jump_correction`. All other maps
        are eq. (1)'s either way.
    noise : str
        ``pooled``: one robust σ over all pixels; ``per_pixel``: the paper's, from four points each.
    mask : MaskOptions
        Which pixels count as fitted.
    average_n_eff : bool
        Average Re[N_eff] over all energies below the edge, corrected to the lowest by the f′ that
        follows from the summed spectrum.
    """

    constants: Literal["chantler", "paper"] = "chantler"
    jump: Literal["eq1", "physical"] = "physical"
    noise: Literal["pooled", "per_pixel"] = "pooled"
    mask: MaskOptions = MaskOptions()
    average_n_eff: bool = True


class QualityOptions(Options):
    """What is checked of the highest energy once all maps are out; either makes a map of the residual, too.

    Attributes
    ----------
    halves : bool
        Reconstruct two halves of the positions, each from scratch, for the Fourier ring correlation: takes
        as long as one reconstruction from scratch.
    prtf_starts : int
        Reconstructions from scratch in other random orders of the positions for the phase-retrieval transfer
        function; its level of 1/e means something from eight on; 0: none.
    """

    halves: bool = False
    prtf_starts: Annotated[int, Field(ge=0, le=64)] = 0

    @property
    def wanted(self) -> bool:
        """Whether anything is checked."""
        return self.halves or self.prtf_starts > 0


class Recipe(Options):
    """Everything that decides how frames become maps.

    Attributes
    ----------
    name : str
    reconstruct : tuple of Stage
        Engines for an energy that starts from unity and the calculated probe.
    warm : tuple of Stage
        Engines for an energy that starts from object and probe of the nearest finished one; empty: every
        energy starts from scratch.
    fill_sidebands : bool
        Whether frequencies that a gap in the detector hides on one side follow their opposites as long as
        each energy is by itself, see `fill_unseen_sidebands`; in a joint refinement they follow the model.
    joint : JointOptions or None
        Refinement of all energies together, after the last one; None: each stays as it is.
    stack, xanes, chemistry, clusters, quality
        Options of these steps.
    n_clusters : int
        Number of chemical states looked for. No criterion finds it reliably, so it is never chosen by itself:
        see `cluster_count.count_states`.
    """

    name: str
    reconstruct: Annotated[tuple[Stage, ...], Field(min_length=1)]
    warm: tuple[Stage, ...] = ()
    fill_sidebands: bool = True
    joint: JointOptions | None = None
    stack: StackOptions = StackOptions()
    xanes: XanesOptions = XanesOptions()
    chemistry: ChemistryOptions = ChemistryOptions()
    clusters: ClusterOptions = ClusterOptions()
    quality: QualityOptions = QualityOptions()
    n_clusters: Annotated[int, Field(ge=1, le=20)] = 6

    def without_monitor(self) -> Recipe:
        """The same for frames whose incident intensity nobody measured: maximum likelihood fits it, too.

        The first of its stages goes as it is, and once more with the intensities: the object of a new energy
        has to come first, or the intensities take what the sample absorbs more than at the energy before, and
        no frame contradicts them much.
        """
        joint = self.joint
        if joint is not None:
            joint = joint.model_copy(update={"refine": tuple(map(_intensities_fitted, joint.refine))})
        return self.model_copy(
            update={
                "reconstruct": _object_first(self.reconstruct),
                "warm": _object_first(self.warm),
                "joint": joint,
            }
        )


def _intensities_fitted(stage: Stage) -> Stage:
    """A stage of maximum likelihood with intensities to fit; any other as it is."""
    if not isinstance(stage, MlOptions):
        return stage
    return stage.model_copy(update={"intensity_error": max(stage.intensity_error, UNMONITORED_ERROR)})


def _object_first(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    first = next((i for i, stage in enumerate(stages) if isinstance(stage, MlOptions)), len(stages))
    return (*stages[: first + 1], *map(_intensities_fitted, stages[first:]))
