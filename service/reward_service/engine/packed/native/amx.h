// What the kernels of this folder share: tiles, vectors of 16 numbers, memory that is kept.

#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <cmath>

namespace {

constexpr int TILE = 16;       // rows of a tile, float32 numbers in a vector
constexpr int WIDE = 2 * TILE; // bfloat16 numbers in a row of a tile
constexpr float LOG2E = 1.44269504088896340736f;

struct alignas(64) TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

const TileConfig ALL_TILES;  // compilers may think that only the first bytes of a local one are read

// Memory that is kept for the next call: fresh pages cost more than what is done with them.
class Memory {
  public:
    ~Memory() { free(at_); }
    void *get(size_t bytes) {
        if (bytes > size_) {
            free(at_);
            size_ = (bytes + 4095) / 4096 * 4096;
            at_ = aligned_alloc(4096, size_);
            if (!at_) size_ = 0;
        }
        return at_;
    }

  private:
    void *at_ = nullptr;
    size_t size_ = 0;
};

inline int padded(int value, int unit) { return (value + unit - 1) / unit * unit; }

// 2 ** x, accurate to 8e-5 (results are rounded to bfloat16, 4e-3).
inline __m512 exp2_vector(__m512 x) {
    const __m512 part = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 y = _mm512_set1_ps(0.07802452f);
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(0.22606717f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(0.69583353f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(0.99992522f));
    return _mm512_scalef_ps(y, x);
}

// Two vectors of 16 as bfloat16, the numbers of both in turn: x0 y0 x1 y1 ... Halves are rounded up.
inline __m512i interleaved(__m512 x, __m512 y) {
    const __m512i half = _mm512_set1_epi32(0x8000);
    const __m512i a = _mm512_add_epi32(_mm512_castps_si512(x), half), b = _mm512_add_epi32(_mm512_castps_si512(y), half);
    return _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(a, 16), b);
}

inline void transpose_16x16(__m512i rows[16]) {
    __m512i t[16];
    for (int i = 0; i < 8; ++i) {
        t[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    for (int i = 0; i < 4; ++i) {
        rows[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        rows[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        rows[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        rows[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_i32x4(rows[i], rows[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(rows[i], rows[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(rows[8 + i], rows[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(rows[8 + i], rows[12 + i], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
        rows[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        rows[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        rows[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        rows[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

}  // namespace
