"""ViTs that carry further tokens besides those of the image, and attention scores of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from timm.layers import apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.backbones.backbone import Backbone
from densemtl.errors import ModelError
from densemtl.ops.resize import get_size


class PromptedLevel(NamedTuple):
    """Features of one level of a ViT with T prompt tokens.

    Scores are those of the attention of the last block of the level, before the softmax: products
    of queries and keys, divided by the square root of the width of a head.

    Attributes:
        feature: map (B, C, H, W).
        prompts: normalized prompt tokens (B, T, C) that the last block reads.
        pixel_scores: scores (B, T, heads, H, W) of the pixels for the queries of the prompts.
        prompt_scores: scores (B, T, heads, T) of the prompts for the queries of the prompts.
    """

    feature: Tensor
    prompts: Tensor
    pixel_scores: Tensor
    prompt_scores: Tensor


def prepare_prompts(backbone: Backbone, count: int) -> None:
    """Check that a backbone can carry prompt tokens, and prepare it for them.

    Args:
        backbone: the backbone. One with rotary embeddings cannot be run without prompts afterwards.
        count: number of prompts.

    Raises:
        ModelError: if it is not a ViT of timm with blocks of a plain kind, or drops patches.
    """
    vit: Any = getattr(backbone.net, "model", None)
    blocks = list(vit.blocks) if isinstance(vit, VisionTransformer | Eva) else []
    if not blocks or not all(_is_plain(block) for block in blocks):
        raise ModelError(
            f"decoder task_prompts: {backbone.name!r} is not a plain ViT of timm: choose e.g."
            " vit_base_patch16_384, deit_small_patch16_224 or vit_small_patch14_reg4_dinov2"
        )
    if not isinstance(vit.patch_drop, nn.Identity | None):
        raise ModelError(
            "backbone.options.patch_drop_rate: decoder task_prompts needs all patches; remove it"
        )
    backbone.check_stages()
    with backbone.dry_run() as image:
        no_tokens = image.new_zeros(0, backbone.feature_info.channels[0])
        levels = run_with_prompts(backbone, image, no_tokens)
        equal = [
            torch.allclose(level.feature, feature, rtol=1e-3, atol=1e-3)
            for level, feature in zip(levels, backbone(image), strict=True)
        ]
    if not all(equal):
        raise ModelError(
            f"decoder task_prompts: {backbone.name!r} does more than run its blocks in sequence;"
            " choose another ViT"
        )
    for block in blocks:
        if isinstance(block.attn, EvaAttention):  # prompts have no position to rotate by
            block.attn.num_prefix_tokens += count


def _is_plain(block: Any) -> bool:
    """Return whether a block is that of a ViT or EVA, without variants of attention."""
    kinds = type(block), type(getattr(block, "attn", None))
    if kinds == (EvaBlock, EvaAttention):
        return block.attn.qkv is not None
    return kinds == (Block, Attention)


def get_num_heads(backbone: Backbone) -> int:
    """Return the number of attention heads of a backbone that `prepare_prompts` accepts.

    Args:
        backbone: the backbone.

    Returns:
        The number of heads, which is the same in all blocks.
    """
    vit: Any = backbone.net.model
    return int(vit.blocks[0].attn.num_heads)


def run_with_prompts(backbone: Backbone, image: Tensor, prompts: Tensor) -> list[PromptedLevel]:
    """Run a ViT with further tokens, which have no position.

    Every block reads and changes the tokens as it does those of the image.

    Args:
        backbone: backbone that `prepare_prompts` accepts.
        image: normalized images (B, 3, H, W).
        prompts: T tokens (T, C), the same for all images.

    Returns:
        The levels of the backbone, in order.
    """
    vit: Any = backbone.net.model
    embedded = vit._pos_embed(vit.patch_embed(image))
    tokens, rope = embedded if isinstance(vit, Eva) else (embedded, None)
    tokens, options = vit.norm_pre(tokens), {} if rope is None else {"rope": rope}
    size = vit.patch_embed.dynamic_feat_size(get_size(image))
    x = torch.cat([prompts.to(tokens.dtype).expand(image.shape[0], -1, -1), tokens], dim=1)
    count = len(prompts)
    first = count + vit.num_prefix_tokens
    levels = []
    for stage in range(len(backbone.feature_info)):
        *before, last_block = backbone.get_stage_modules(stage)
        for block in before:
            x = block(x, **options)
        last: Any = last_block
        normalized = last.norm1(x)
        scores = compute_scores(last.attn, normalized, count, rope)
        x = last(x, **options)
        feature = torch.unflatten(x[:, first:].transpose(1, 2), 2, size)
        level = PromptedLevel(
            feature=backbone.record_map(stage, feature),
            prompts=normalized[:, :count],
            pixel_scores=torch.unflatten(scores[..., first:], 3, size),
            prompt_scores=scores[..., :count],
        )
        levels.append(level)
    return levels


def compute_scores(
    attention: Any, tokens: Tensor, count: int, rope: Tensor | None = None
) -> Tensor:
    """Compute the attention scores of all tokens for the queries of the first tokens.

    Args:
        attention: attention layer of a ViT.
        tokens: its input (B, N, C).
        count: number T of the first tokens, which have no position.
        rope: rotary embeddings of the positions of the image tokens, or None.

    Returns:
        Scores (B, T, heads, N), scaled as in the attention.
    """
    heads = (attention.num_heads, attention.head_dim)
    queries, keys = _project(attention, tokens, count)
    queries = attention.q_norm(torch.unflatten(queries, 2, heads).transpose(1, 2))
    keys = attention.k_norm(torch.unflatten(keys, 2, heads).transpose(1, 2))
    if rope is not None:
        first, half = attention.num_prefix_tokens, attention.rotate_half
        rotated = apply_rot_embed_cat(keys[:, :, first:], rope, half=half).type_as(keys)
        keys = torch.cat([keys[:, :, :first], rotated], dim=2)
    # Scaled before the product, which exceeds the range of fp16 otherwise.
    scores: Tensor = (attention.scale * queries) @ keys.transpose(-2, -1)
    return scores.transpose(1, 2)


def _project(attention: Any, tokens: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the queries (B, T, D) of the first tokens, and the keys (B, N, D) of all tokens.

    The values and the other queries are not computed, unless the layer has an adapter.
    """
    layer = attention.qkv
    if getattr(attention, "q_bias", None) is not None:  # EVA has no biases of the layer itself
        query_bias, key_bias = attention.q_bias, attention.k_bias
    else:
        query_bias, key_bias, _ = (None,) * 3 if layer.bias is None else layer.bias.chunk(3)
    if type(layer) is not nn.Linear:
        queries, keys, _ = layer(tokens).chunk(3, dim=-1)
        if layer.bias is None and query_bias is not None:
            queries, keys = queries + query_bias, keys + key_bias
        return queries[:, :count], keys
    query_weight, key_weight, _ = layer.weight.chunk(3)
    queries = F.linear(tokens[:, :count], query_weight, query_bias)
    return queries, F.linear(tokens, key_weight, key_bias)
