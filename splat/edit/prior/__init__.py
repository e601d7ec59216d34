"""Drags refined by what a diffusion model believes pictures look like (specs: viewer_editing 4.1, 4.4).

The geometric drag (``splat.edit.drag``) says where everything goes; a prior looks at renders of the result and says
what is implausible about them. The scheme is that of Drag Your Gaussian (Qu et al., SIGGRAPH 2025), written anew from
its description: three regions (mask, a shell of neighbours, the rest, which never changes), offsets from a field on
three planes, two stages, a noise level that falls over the run, score distillation against a branch that learns the
current renders. It needs no weights to run: with the prior ``none`` the geometric energy alone is minimised.

Weights are read from a folder the user names, in safetensors only; nothing is ever fetched, and a pickle is refused.

**Not measured**: what the priors with weights do for the quality of a drag. The code of ``sds-inpaint`` and
``lightning-drag`` was run on tiny random networks only (shapes, gradients, masks, schedules, and that the source branch
learns); no real weights were at hand. To run one on a drag in an edit log:

    splat edit RUN --log edits.json -o OUT --edit-prior sds-inpaint --edit-prior-path FOLDER

``diffusers``, ``transformers``, ``peft`` and ``accelerate`` are the extra ``splat[diffusion]``; they are imported when
a prior with weights is asked for, and nowhere else.
"""
