"""CPU kernels. Addresses are integers, strides count numbers; callers have checked shapes."""

def isas() -> list[str]: ...
def best_isa() -> str: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def threads() -> int: ...
def set_threads(n: int) -> None: ...

class PackedLinear:
    def __init__(
        self, n_out: int, n_in: int, storage: str, compute: str = ..., has_bias: bool = ...
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def storage(self) -> str: ...
    def load_rows(
        self, rows: int, dtype: str, stride: int, first_row: int, n_rows: int, /
    ) -> None: ...
    def load_bias(self, bias: int, first_row: int, n_rows: int, /) -> None: ...
    def widen(self) -> None: ...
    def forward(self, x: int, x_stride: int, n_rows: int, y: int, y_stride: int, /) -> None: ...

def quantized_kinds() -> dict[str, tuple[int, int]]: ...
def dequantize(kind: str, blocks: int, n_blocks: int, out: int, /) -> None: ...
def quantize(kind: str, numbers: int, n_blocks: int, out: int, /) -> bool: ...

class QuantizedLinear:
    def __init__(self, n_out: int, n_in: int, has_bias: bool = ...) -> None: ...
    @property
    def nbytes(self) -> int: ...
    def load_rows(
        self, kind: str, rows: int, row_bytes: int, first_row: int, n_rows: int, /
    ) -> None: ...
    def load_bias(self, bias: int, first_row: int, n_rows: int, /) -> None: ...
    def forward(self, x: int, x_stride: int, n_rows: int, y: int, y_stride: int, /) -> None: ...
    def embed(self, ids: int, n: int, scale: float, out: int, out_stride: int, /) -> None: ...

def rms_norm(
    x: int,
    x_stride: int,
    residual: int,
    residual_stride: int,
    weight: int,
    eps: float,
    n: int,
    d: int,
    out: int,
    out_stride: int,
    /,
) -> None: ...
def add(x: int, x_stride: int, residual: int, residual_stride: int, n: int, d: int, /) -> None: ...
def norm_rope(
    x: int,
    token_stride: int,
    head_stride: int,
    n: int,
    heads: int,
    head_dim: int,
    positions: int,
    table_rows: int,
    cos: int,
    sin: int,
    rotary_half: int,
    weight: int,
    norm_all_heads: bool,
    eps: float,
    /,
) -> None: ...
def gated(
    gate_up: int, gate_up_stride: int, n: int, d: int, gelu: bool, out: int, out_stride: int, /
) -> None: ...
def embed(
    ids: int,
    n: int,
    table: int,
    bfloat16: bool,
    table_stride: int,
    vocabulary: int,
    d: int,
    scale: float,
    out: int,
    out_stride: int,
    /,
) -> None: ...
def argmax(logits: int, stride: int, n: int, d: int, out: int, /) -> None: ...
def log_prob(
    logits: int, stride: int, n: int, d: int, best: int, targets: int, out: int, /
) -> None: ...

class PageCache:
    def __init__(
        self, keys: int, values: int, n_pages: int, bfloat16: bool, kv_heads: int, head_dim: int, /
    ) -> None: ...
    def write(
        self,
        key: int,
        key_token_stride: int,
        key_head_stride: int,
        value: int,
        value_token_stride: int,
        value_head_stride: int,
        slots: int,
        n: int,
        /,
    ) -> None: ...
    def attend(
        self,
        query: int,
        token_stride: int,
        head_stride: int,
        tokens: int,
        out: int,
        heads: int,
        sequences: int,
        cu_seqlens_q: int,
        seq_lens: int,
        block_tables: int,
        block_table_stride: int,
        block_table_width: int,
        window: int,
        scale: float,
        softcap: float,
        /,
    ) -> None: ...
