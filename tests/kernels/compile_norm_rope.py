"""Shipped configurations of the norm, rotation and write in one."""

from compile_case import SMS, CompileCase

from flipfast_kernels.jit.norm_rope import norm_rope_kernel
from flipfast_kernels.norm_rope import norm_rope_tiles

POINTERS = ("query_ptr", "key_ptr", "value_ptr", "key_pages_ptr", "value_pages_ptr")
INTS = (
    *("n_heads", "n_kv_heads", "head_dim", "half"),
    *("query_stride", "query_head_stride", "key_stride", "key_head_stride"),
    *("value_stride", "value_head_stride", "page_stride", "offset_stride", "page_head_stride"),
    *("cos_stride", "sin_stride"),
)


def cases():
    for sm in SMS:
        yield case("qwen3-0.6b", sm, 1, 16, 8, 128)
    yield case("olmo2-7b", 90, 2, 32, 32, 128)
    yield case("llama-405b", 90, 0, 128, 8, 128)


def case(name, sm, norm, n_heads, n_kv_heads, head_dim):
    tiles = norm_rope_tiles(n_heads, n_kv_heads, head_dim, head_dim)
    weights = ("query_weight_ptr", "key_weight_ptr")
    return CompileCase(
        f"norm_rope-{name}",
        norm_rope_kernel,
        sm,
        {
            **{key: value for key, value in tiles.items() if key != "num_warps"},
            "QUERY_NORM": norm,
            "KEY_NORM": norm,
            "HAS_ROPE": True,
            "HAS_KEY": True,
            "PAGE_SIZE": 16,
            **({} if norm else dict.fromkeys(weights)),
        },
        {
            **dict.fromkeys(POINTERS, "*bf16"),
            **dict.fromkeys(("slots_ptr", "positions_ptr"), "*i64"),
            **dict.fromkeys(("cos_ptr", "sin_ptr", *(weights if norm else ())), "*fp32"),
            "eps": "fp32",
            **dict.fromkeys(INTS, "i32"),
        },
        {"enable_fp_fusion": False, "num_warps": tiles["num_warps"]},
    )
