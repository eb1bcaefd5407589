"""The weight-space autoencoder: windows of true weights to one latent per token, and back.

What it is: the network of METHOD 3 with its scale features and its projection head, loadable with
`from_pretrained` like any hub model. What it is not: a loss (``loss``), a training (``loop``), a
walk over whole models (``sweep``). I/O only in `save_pretrained` and `from_pretrained`, and those
read and write safetensors and JSON, never a pickle.

Source: SANE, arXiv 2406.09997; hub backbone, arXiv 2510.02096. Ours: scale features in and out,
a projection head that pools over real tokens, an initialisation that starts as a projection.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin, constants, hf_hub_download
from safetensors.torch import load_file
from torch import Tensor, nn

from ws_pipeline.arrays import NUM_SCALE_FEATURES
from ws_pipeline.backbone.blocks import Stack, initialize_blocks
from ws_pipeline.backbone.config import BackboneConfig
from ws_pipeline.backbone.normalization import LOCAL, ScaledTokens, denormalize, normalize
from ws_pipeline.backbone.positions import LearnedCode, position_code
from ws_pipeline.errors import MissingInputError

POSITION_GAIN = 0.1
"""Initial factor of the position code (learned from there): enough to be seen, too little to drown
the token, whose projection to the latent has to survive from the first step on."""

PROJECTION_RATIO = 2
"""Hidden units of the projection head per output."""


class BackboneOutput(NamedTuple):
    """What one pass gives.

    Attributes:
        latents: ``(batch, window, latent_size)``, zero where padded.
        prediction: Reconstruction in normalised units, with the scale that the input had.
        scale: ``(batch, window, 2)``, the decoder's idea of the scale features; None without them.
        projection: ``(batch, projection_size)`` for the contrastive loss; None without a head.
    """

    latents: Tensor
    prediction: ScaledTokens
    scale: Tensor | None
    projection: Tensor | None


class Backbone(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="ws_pipeline",
    license="apache-2.0",
    tags=["weight-space-learning"],
):
    """One network over the weights of all models.

    Args:
        config: Sizes and choices.
        generator: Of the initial weights; seed 0 if None. The global generator is never touched.
    """

    def __init__(self, config: BackboneConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.over = LOCAL
        """Where the batches are that it sees a part of; a training of several processes sets it."""
        with torch.random.fork_rng(devices=[]):  # nn.Linear draws from the global generator
            self._build(config)
        generator = generator or torch.Generator().manual_seed(0)
        self._initialize(generator)
        if config.initialization == "uniform":
            self._draw_uniform(generator)

    def _build(self, config: BackboneConfig) -> None:
        width, features = config.width, NUM_SCALE_FEATURES
        self.code = position_code(config)
        self.position_gain = nn.Parameter(torch.empty(2, width))  # encoder, decoder
        self.embed = nn.Linear(config.token_size, width, bias=False)
        self.embed_scale = nn.Linear(features, width, bias=False) if config.use_scale else None
        self.encoder = Stack(width, config.num_heads, config.num_layers)
        self.to_latent = nn.Linear(width, config.latent_size, bias=False)
        self.from_latent = nn.Linear(config.latent_size, width, bias=False)
        self.decoder = Stack(width, config.num_heads, config.num_layers)
        self.to_token = nn.Linear(width, config.token_size, bias=False)
        self.to_scale = nn.Linear(width, features) if config.use_scale else None
        self.project = _projection_head(config) if config.projection_size else None

    @torch.no_grad()
    def _initialize(self, generator: torch.Generator) -> None:
        """Start as an orthogonal projection: a fresh backbone loses latent_size / token_size.

        embed is an isometry E, to_latent is P E', from_latent its transpose, to_token is E', and
        all blocks are the identity, so tokens come out as P' P x. Training then only has to find
        better directions and what neighbours and positions tell.
        """
        config = self.config
        isometry, compression = (
            torch.empty(*shape)
            for shape in (self.embed.weight.shape, (config.latent_size, config.token_size))
        )
        nn.init.orthogonal_(isometry, generator=generator)
        nn.init.orthogonal_(compression, generator=generator)
        self.embed.weight.copy_(isometry)
        self.to_latent.weight.copy_(compression @ isometry.T)
        self.from_latent.weight.copy_(isometry @ compression.T)
        self.to_token.weight.copy_(isometry.T)
        self.position_gain.fill_(POSITION_GAIN)
        for stack in (self.encoder, self.decoder):
            initialize_blocks(stack, generator)
        if isinstance(self.code, LearnedCode):
            for table in self.code.parameters():
                nn.init.normal_(table, generator=generator)
        if self.embed_scale is not None and self.to_scale is not None:
            nn.init.normal_(self.embed_scale.weight, std=POSITION_GAIN, generator=generator)
            nn.init.normal_(self.to_scale.weight, std=config.width**-0.5, generator=generator)
            nn.init.zeros_(self.to_scale.bias)
        for module in self.project or ():
            if isinstance(module, nn.Linear):
                std = module.in_features**-0.5
                nn.init.normal_(module.weight, std=std, generator=generator)

    @torch.no_grad()
    def _draw_uniform(self, generator: torch.Generator) -> None:
        """Start as the papers' code does: torch's draws in all layers, position codes in full.

        Source: `nn.Linear.reset_parameters`, uniform within 1 / sqrt(fan_in).
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                for parameter in module.parameters():
                    bound = module.in_features**-0.5
                    nn.init.uniform_(parameter, -bound, bound, generator=generator)
        self.position_gain.fill_(1.0)

    def forward(
        self, tokens: Tensor, mask: Tensor, positions: Tensor, scale: Tensor
    ) -> BackboneOutput:
        """Encode and decode windows of true weights.

        Args:
            tokens: ``(batch, window, token_size)`` float32, zero where padded.
            mask: ``(batch, window, token_size)`` bool, real weights.
            positions: ``(batch, window, 3)`` int64.
            scale: ``(batch, window, 2)``, (mean, log std) of each token's layer.
        """
        scaled = self.normalize(tokens, mask, scale)
        real = mask.any(dim=-1)
        code = self.code(positions)
        latents = self._encode(scaled, real, code)
        prediction, features = self._decode(latents, real, code)
        prediction = prediction.masked_fill(~mask, 0.0)
        projection = None if self.project is None else self.project(pool_latents(latents, real))
        return BackboneOutput(latents, scaled._replace(tokens=prediction), features, projection)

    def normalize(self, tokens: Tensor, mask: Tensor, scale: Tensor) -> ScaledTokens:
        """Bring true weights to the units that the encoder works in."""
        return normalize(tokens, mask, scale, self.config.normalization, self.over)

    def encode(self, tokens: Tensor, mask: Tensor, positions: Tensor, scale: Tensor) -> Tensor:
        """Return latents ``(batch, window, latent_size)`` of true weights; zero where padded."""
        scaled = self.normalize(tokens, mask, scale)
        return self._encode(scaled, mask.any(dim=-1), self.code(positions))

    def decode(
        self, latents: Tensor, real: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return tokens in normalised units and scale features.

        Args:
            latents: ``(batch, window, latent_size)``.
            real: ``(batch, window)`` bool, false on padding.
            positions: ``(batch, window, 3)`` int64.

        Returns:
            ``(batch, window, token_size)`` and ``(batch, window, 2)`` or None.
        """
        return self._decode(latents, real, self.code(positions))

    def reconstruct(self, tokens: Tensor, mask: Tensor, positions: Tensor, scale: Tensor) -> Tensor:
        """Return true weights as they come back, ``(batch, window, token_size)``."""
        return denormalize(self(tokens, mask, positions, scale).prediction, mask)

    def _encode(self, scaled: ScaledTokens, real: Tensor, code: Tensor) -> Tensor:
        x = self.embed(scaled.tokens) + self.position_gain[0] * code
        if self.embed_scale is not None:
            x = x + self.embed_scale(scaled.features())
        latents: Tensor = self.to_latent(self.encoder(x, real))
        return latents.float().masked_fill(~real[..., None], 0.0)

    def _decode(self, latents: Tensor, real: Tensor, code: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.from_latent(latents) + self.position_gain[1] * code
        x = self.decoder(x, real)
        features = None if self.to_scale is None else self.to_scale(x).float()
        return self.to_token(x).float(), features

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        strict: bool = True,
        **model_kwargs: Any,
    ) -> "Backbone":
        """Load weights and config; unlike the mixin's own, never falls back to a pickle.

        Raises:
            MissingInputError: If a local folder lacks the config or the weights.
        """
        config = model_kwargs.get("config")
        name = constants.SAFETENSORS_SINGLE_FILE
        path = Path(model_id) / name
        if config is None or (path.parent.is_dir() and not path.is_file()):
            missing = name if config is not None else constants.CONFIG_NAME
            raise MissingInputError(f"A backbone needs {missing}, but {model_id} has none.")
        if not path.is_file():
            path = Path(
                hf_hub_download(
                    model_id,
                    name,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        backbone = cls(config)
        backbone.load_state_dict(load_file(path, device=map_location), strict=strict)
        return backbone.to(map_location).eval()


def untrained(config: BackboneConfig, seed: int) -> Backbone:
    """Return a backbone that has seen nothing: the baseline that every embedding has to beat."""
    return Backbone(config, generator=torch.Generator().manual_seed(seed)).eval()


def pool_latents(latents: Tensor, real: Tensor) -> Tensor:
    """Average latents over real tokens; ``(batch, latent_size)``, for any window length."""
    count = real.sum(dim=-1, keepdim=True).clamp(min=1)
    return latents.masked_fill(~real[..., None], 0.0).sum(dim=1) / count


def num_parameters(backbone: nn.Module) -> int:
    """Count trainable numbers."""
    return sum(p.numel() for p in backbone.parameters())


def count_parameters(config: BackboneConfig) -> int:
    """Count what a config comes to, on torch's meta device: no memory, no time."""
    backbone = Backbone.__new__(Backbone, config)
    nn.Module.__init__(backbone)
    with torch.device("meta"):
        backbone._build(config)
    return num_parameters(backbone)


def _projection_head(config: BackboneConfig) -> nn.Sequential:
    """Two layers over the pooled latent; the peers' flatten the window, which fixes its length."""
    hidden = PROJECTION_RATIO * config.projection_size
    return nn.Sequential(
        nn.Linear(config.latent_size, hidden, bias=False),
        nn.GELU(),
        nn.Linear(hidden, config.projection_size, bias=False),
    )
