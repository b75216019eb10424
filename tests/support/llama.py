"""A real llama.cpp server with a tiny model of random weights.

Random output makes `enforced` decisive: text that conforms to a schema cannot be luck.
Run as a program: `llama.py MODEL PORT_FILE [--embeddings]` serves until SIGTERM; the model is made if missing.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

__all__ = ["CONTEXT", "KEY", "VECTOR", "llama_server"]

KEY: Final = "test-key-0123456789"
CONTEXT: Final = 1024
VECTOR: Final = 64
"""Numbers in a vector: the width of the model."""
_STARTS_IN_S: Final = 30


@contextmanager
def llama_server(folder: Path, *, embeddings: bool = False) -> Iterator[str]:
    """Serve a model that lies in `folder`; yields the base URL."""
    port_file = folder / ("embeddings.port" if embeddings else "chat.port")
    port_file.unlink(missing_ok=True)
    words = [sys.executable, str(Path(__file__)), str(folder / "tiny.gguf"), str(port_file)]
    with (folder / "llama.log").open("ab") as log:
        child = subprocess.Popen([*words, *(["--embeddings"] if embeddings else [])], stdout=log, stderr=log)
    try:
        for _ in range(_STARTS_IN_S * 20):
            if port_file.exists() or child.poll() is not None:
                break
            time.sleep(0.05)
        assert port_file.exists(), (folder / "llama.log").read_text(errors="replace")[-2000:]
        yield f"{port_file.read_text()}/v1"
    finally:
        child.terminate()
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def make_model(path: Path) -> None:
    """Write a model of random weights that reads and writes bytes."""
    import gguf
    import numpy as np

    width, layers, heads, inner = VECTOR, 2, 4, 128
    random = np.random.default_rng(7)
    words = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256)), "▁".encode()]
    kinds = gguf.TokenType
    writer: Any = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *([kinds.BYTE] * 256), kinds.NORMAL])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}\n{% endfor %}")

    def normal(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.normal(0, 0.05, shape).astype(np.float32))

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(width, dtype=np.float32))

    normal("token_embd.weight", len(words), width)
    normal("output.weight", len(words), width)
    ones("output_norm.weight")
    for layer in range(layers):
        for part in ("q", "k", "v", "output"):
            normal(f"blk.{layer}.attn_{part}.weight", width, width)
        normal(f"blk.{layer}.ffn_gate.weight", inner, width)
        normal(f"blk.{layer}.ffn_up.weight", inner, width)
        normal(f"blk.{layer}.ffn_down.weight", width, inner)
        ones(f"blk.{layer}.attn_norm.weight")
        ones(f"blk.{layer}.ffn_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _serve(model: Path, port_file: Path, *, embeddings: bool) -> None:
    xllamacpp: Any = import_module("xllamacpp")  # it says nothing of its types
    if not model.exists():
        made = model.with_suffix(".new")
        make_model(made)
        made.replace(model)
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = CONTEXT
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = 1
    params.warmup = False
    params.ui = False
    params.api_keys = [KEY]
    params.model_alias = {"tiny"}
    if embeddings:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    ready = port_file.with_suffix(".new")
    ready.write_text(str(server.listening_address))
    ready.replace(port_file)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("port_file", type=Path)
    parser.add_argument("--embeddings", action="store_true")
    given = parser.parse_args()
    _serve(given.model, given.port_file, embeddings=given.embeddings)
