"""A model folder or hub id to a loaded model and tokenizer: safetensors only, no invented weights, no code unasked."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from reward_service.config import ClassifierConfig
from reward_service.engine.fingerprint import INDEX, SINGLE, Stamp, stamps, weight_files
from reward_service.engine.heads import head_in_float32
from reward_service.engine.positions import bound_of
from reward_service.errors import NotReady, ServiceError

log = logging.getLogger(__name__)
HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that can score, and what goes with it; `stamps` are those of its files before they were read."""

    model: nn.Module
    tokenizer: Any
    folder: Path
    stamps: Mapping[str, Stamp]
    labels: tuple[str, ...]
    pad_token_id: int | None
    max_tokens: int
    parameters: int


def load(config: ClassifierConfig, device: str) -> Loaded:
    """Blocking. Raises NotReady with the model's name and the reason."""
    try:
        folder = find_folder(config)
        if not weight_files(folder):
            raise NotReady(f"model {config.name!r}: {config.source} holds no safetensors weights (model.safetensors)")
        if (folder / SINGLE).is_file() and (folder / INDEX).is_file():
            raise NotReady(f"model {config.name!r}: {config.source} holds both {SINGLE} and {INDEX}: remove one")
        return _load(config, folder, device)
    except ServiceError:
        raise
    except Exception as error:  # whatever Transformers or the model's own code raises
        raise NotReady(f"model {config.name!r} cannot be loaded from {config.source}: {error}") from error


def resolve_device(name: str) -> str:
    """`auto` becomes the first GPU, or the CPU where there is none; `cuda` becomes `cuda:0`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return "cuda:0" if name == "cuda" else name


def find_folder(config: ClassifierConfig, files: Sequence[str] = HUB_FILES) -> Path:
    """Where a model's files lie; of a hub's model those that `files` match are fetched."""
    local = Path(config.source).expanduser()
    if local.is_dir():
        return local.resolve()  # a link may be set to another folder while the model loads
    from huggingface_hub import snapshot_download  # late: a folder needs no hub

    patterns = [*files, *(["*.py"] if config.trust_remote_code else [])]
    return Path(snapshot_download(config.source, revision=config.revision, allow_patterns=patterns))


def _load(config: ClassifierConfig, folder: Path, device: str) -> Loaded:
    before = stamps(folder, config)
    disable_progress_bar()  # a service's log is no place for one
    trust = config.trust_remote_code
    model_config = AutoConfig.from_pretrained(folder, trust_remote_code=trust)
    _refuse_weights_elsewhere(config, folder, model_config)
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder,
        config=model_config,
        dtype=DTYPES[config.dtype],
        use_safetensors=True,
        trust_remote_code=trust,
        output_loading_info=True,
    )
    _refuse_invented_weights(config, info)
    _own_memory(model)
    model.config.use_cache = False
    head_in_float32(model, model.config.num_labels)
    text_config = model.config.get_text_config()
    return Loaded(
        model=model.eval().requires_grad_(False).to(device),
        tokenizer=load_tokenizer(folder, trust),
        folder=folder,
        stamps=before,
        labels=tuple(model.config.id2label[index] for index in range(model.config.num_labels)),
        pad_token_id=getattr(text_config, "pad_token_id", None),
        max_tokens=min(config.max_tokens, _positions(model, text_config)),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def _refuse_weights_elsewhere(config: ClassifierConfig, folder: Path, model_config: Any) -> None:
    """Transformers would load other weights than those that the fingerprint names."""
    if getattr(model_config, "transformers_weights", None) is not None:
        raise NotReady(
            f"model {config.name!r}: config.json of {config.source} sets `transformers_weights`: remove it and name the"
            f" weights {SINGLE}"
        )
    if (folder / "adapter_config.json").is_file():
        raise NotReady(f"model {config.name!r}: {config.source} holds an adapter: merge it into the model's weights")


def _refuse_invented_weights(config: ClassifierConfig, info: dict[str, Any]) -> None:
    """Transformers fills absent weights with random ones and goes on; scores of such a model mean nothing."""
    absent = sorted({*map(str, info["missing_keys"]), *(str(key) for key in info["mismatched_keys"])})
    if absent:
        shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        raise NotReady(
            f"model {config.name!r}: {config.source} is no trained reward model: it has no weights for {shown}"
        )


def _own_memory(model: nn.Module) -> None:
    """Weights may lie in the file's pages: who overwrites the file would change the scores, or end the process."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def load_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """The tokenizer, which neither cuts nor pads."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if not tokenizer.chat_template:
        log.warning("%s has no chat template: only conversations given as `text` can be scored", folder)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # settings of tokenizer.json that would cut or pad behind our back
        backend.no_truncation()
        backend.no_padding()
    return tokenizer


def _positions(model: nn.Module, text_config: Any) -> int:
    """How many positions there are where they are learnt (beyond them the model fails); no bound for rotary ones.

    Dynamic ones are bounded by their original length: beyond it, Transformers' scores depend on what came before.
    """
    dynamic = bound_of(text_config, ("dynamic",))
    if dynamic is not None:
        return dynamic
    learnt: int | None = getattr(text_config, "max_position_embeddings", None)
    rotary = any(getattr(text_config, name, None) for name in ("rope_parameters", "rope_theta", "rope_scaling"))
    if learnt is None or rotary:
        return 2**31
    offsets = [  # RoBERTa counts its positions from the pad id on
        module.padding_idx + 1
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and module.padding_idx is not None
    ]
    return learnt - max(offsets, default=0)
