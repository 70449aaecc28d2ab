// Attention of packed sequences on CPUs with AMX: bfloat16 in and out, float32 softmax and sums.
//
// Keys and values lie in spans (the token runs of a pack). A block of queries reads a list of spans, in order, as one
// sequence of keys; its first query stands at key `first`, the next at `first + 1`. Keys and values are laid out
// for the tile unit once per span, however many blocks read it. Softmax runs online over blocks of keys.
//
// Scores are computed transposed, keys x queries: a vector holds one key's scores of 16 queries, so that the softmax of
// 16 queries needs no reduction across a vector. The sums are transposed back when they are stored.

#include "amx.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <memory>
#include <vector>

namespace {

constexpr int QUERIES = 2 * TILE;  // queries of one step: two vectors
constexpr int KEYS = 64;           // keys of one step of the online softmax
constexpr int MAX_DIM = 256;

struct Strides {
    int64_t token, head;
};

struct Problem {
    const uint16_t *q, *k, *v;
    uint16_t *out;
    Strides qs, ks, vs, os;
    int heads, kv_heads, dim, value_dim;
    int spans;
    const int32_t *span_start, *span_length;
    int blocks;
    const int32_t *block_row, *block_rows, *block_first, *block_spans, *read;  // block_spans: offsets into read
    float scale, softcap;
    int window;  // 0: unbounded
    int causal;
    const float *sinks;
    int threads;
};

struct Layout {
    int dim, value_dim;  // padded to whole tiles
    int64_t *offset;     // first key of each span, in padded keys
    int64_t keys;        // padded keys of all spans
    uint16_t *k, *v;     // [kv_heads][keys][dim], [kv_heads][keys / 32][value_dim][32]
    uint16_t *key(int head, int64_t at) const { return k + (head * keys + at) * dim; }
    uint16_t *value(int head, int64_t at) const { return v + (head * keys + at) * value_dim; }
};

// Keys that a block of queries reads in one step: `count` with padding, `real` without, the first being key `here`.
struct Step {
    const uint16_t *keys, *values;
    int here, real, count;
};

struct alignas(64) Scratch {
    float scores[2][KEYS][QUERIES];  // of this step and the next
    uint16_t shares[KEYS / 2][QUERIES][2];  // of two neighbouring keys side by side
    float sums[MAX_DIM][QUERIES];
    uint16_t queries[MAX_DIM / 2][QUERIES][2];
    float top[QUERIES], total[QUERIES];
    std::vector<Step> steps;
};

inline __m512 tanh_vector(__m512 x) {
    const __m512 magnitude = _mm512_min_ps(_mm512_set1_ps(20.0f), _mm512_abs_ps(x));  // the second where one is not a number
    const __m512 e = exp2_vector(_mm512_mul_ps(magnitude, _mm512_set1_ps(-2.0f * LOG2E)));
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 t = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
    return _mm512_mask_sub_ps(t, _mm512_movepi32_mask(_mm512_castps_si512(x)), _mm512_setzero_ps(), t);
}

// 32 numbers of a row from `at` on; zeros beyond `dim`.
inline __m512i row_part(const uint16_t *row, int at, int dim) {
    const int left = dim - at;
    if (left >= WIDE) return _mm512_loadu_si512(row + at);
    return left <= 0 ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi16((1u << left) - 1, row + at);
}

void lay_out_keys(const Problem &p, const Layout &l, int head, int span) {
    const int length = p.span_length[span];
    const uint16_t *source = p.k + p.span_start[span] * p.ks.token + head * p.ks.head;
    uint16_t *target = l.key(head, l.offset[span]);
    for (int key = 0; key < padded(length, WIDE); ++key)
        for (int at = 0; at < l.dim; at += WIDE)
            _mm512_store_si512(target + key * l.dim + at,
                               key < length ? row_part(source + key * p.ks.token, at, p.dim) : _mm512_setzero_si512());
}

// Values transposed: 32 keys of a dimension side by side.
void lay_out_values(const Problem &p, const Layout &l, int head, int span) {
    const int length = p.span_length[span];
    const uint16_t *source = p.v + p.span_start[span] * p.vs.token + head * p.vs.head;
    uint16_t *target = l.value(head, l.offset[span]);
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                         36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(TILE));
    for (int key = 0; key < length; key += WIDE, target += WIDE * l.value_dim)
        for (int at = 0; at < l.value_dim; at += WIDE) {
            __m512i left[TILE], right[TILE];  // pairs of keys x 16 dimensions
            for (int i = 0; i < TILE; ++i) {
                const int64_t even = key + 2 * i, odd = even + 1;
                const __m512i zero = _mm512_setzero_si512();
                const __m512i x = even < length ? row_part(source + even * p.vs.token, at, p.value_dim) : zero;
                const __m512i y = odd < length ? row_part(source + odd * p.vs.token, at, p.value_dim) : zero;
                left[i] = _mm512_permutex2var_epi16(x, low, y);
                right[i] = _mm512_permutex2var_epi16(x, high, y);
            }
            transpose_16x16(left);
            transpose_16x16(right);
            for (int i = 0; i < TILE; ++i) {
                _mm512_store_si512(target + (at + i) * WIDE, left[i]);
                _mm512_store_si512(target + (at + TILE + i) * WIDE, right[i]);
            }
        }
}

void load_queries(Scratch &s, const Problem &p, int dim, int head, int row, int rows) {
    const uint16_t *source = p.q + row * p.qs.token + head * p.qs.head;
    for (int half = 0; half < QUERIES; half += TILE)
        for (int at = 0; at < dim; at += WIDE) {
            __m512i part[TILE];
            for (int i = 0; i < TILE; ++i)
                part[i] = half + i < rows ? row_part(source + (half + i) * p.qs.token, at, p.dim) : _mm512_setzero_si512();
            transpose_16x16(part);
            for (int i = 0; i < TILE; ++i) _mm512_store_si512(s.queries[at / 2 + i][half], part[i]);
        }
}

// scores[count][32] = keys . queries
void multiply_keys(const Scratch &s, float (*scores)[QUERIES], const Step &step, int dim) {
    const uint16_t *keys = step.keys;
    for (int key = 0; key < step.count; key += WIDE, keys += WIDE * dim) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int at = 0; at < dim; at += WIDE) {
            _tile_loadd(4, keys + at, dim * 2);
            _tile_loadd(6, s.queries[at / 2][0], QUERIES * 4);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, s.queries[at / 2][TILE], QUERIES * 4);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, keys + TILE * dim + at, dim * 2);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, &scores[key][0], QUERIES * 4);
        _tile_stored(1, &scores[key][TILE], QUERIES * 4);
        _tile_stored(2, &scores[key + TILE][0], QUERIES * 4);
        _tile_stored(3, &scores[key + TILE][TILE], QUERIES * 4);
    }
}

// sums[value_dim][32] += values . shares
void multiply_values(Scratch &s, const Step &step, int value_dim) {
    for (int at = 0; at < value_dim; at += WIDE) {
        _tile_loadd(0, &s.sums[at][0], QUERIES * 4);
        _tile_loadd(1, &s.sums[at][TILE], QUERIES * 4);
        _tile_loadd(2, &s.sums[at + TILE][0], QUERIES * 4);
        _tile_loadd(3, &s.sums[at + TILE][TILE], QUERIES * 4);
        const uint16_t *block = step.values + at * WIDE;
        for (int key = 0; key < step.count; key += WIDE, block += WIDE * value_dim) {
            _tile_loadd(4, block, WIDE * 2);
            _tile_loadd(6, s.shares[key / 2][0], QUERIES * 4);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, s.shares[key / 2][TILE], QUERIES * 4);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, block + TILE * WIDE, WIDE * 2);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, &s.sums[at][0], QUERIES * 4);
        _tile_stored(1, &s.sums[at][TILE], QUERIES * 4);
        _tile_stored(2, &s.sums[at + TILE][0], QUERIES * 4);
        _tile_stored(3, &s.sums[at + TILE][TILE], QUERIES * 4);
    }
}

// The keys that 16 queries see among those of one step: [low, high), of each query.
struct Seen {
    __m512i low, high;
    int all_from, all_until;  // what every query sees
    __mmask16 at(int key) const {
        const __m512i here = _mm512_set1_epi32(key);
        return _mm512_cmple_epi32_mask(low, here) & _mm512_cmpgt_epi32_mask(high, here);
    }
    bool by_all(int keys) const { return all_from == 0 && keys <= all_until; }
};

// The largest scores of 16 queries among the keys that they see.
template <bool all>
__m512 largest(const float (*scores)[QUERIES], int half, const Seen &seen, int count) {
    __m512 best[4];
    for (__m512 &one : best) one = _mm512_set1_ps(-INFINITY);
    for (int key = 0; key < count; key += 4)
        for (int i = 0; i < 4; ++i) {
            const __m512 x = _mm512_load_ps(&scores[key + i][half]);
            best[i] = all ? _mm512_max_ps(best[i], x) : _mm512_mask_max_ps(best[i], seen.at(key + i), best[i], x);
        }
    return _mm512_max_ps(_mm512_max_ps(best[0], best[1]), _mm512_max_ps(best[2], best[3]));
}

// Shares of 16 queries in the keys of a step, not yet divided by their total: the total.
template <bool all>
__m512 share(Scratch &s, const float (*scores)[QUERIES], int half, const Seen &seen, int count, __m512 scale, __m512 shift) {
    __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
    for (int key = 0; key < count; key += 2) {
        __m512 x = exp2_vector(_mm512_fmsub_ps(_mm512_load_ps(&scores[key][half]), scale, shift));
        __m512 y = exp2_vector(_mm512_fmsub_ps(_mm512_load_ps(&scores[key + 1][half]), scale, shift));
        if (!all) {
            x = _mm512_maskz_mov_ps(seen.at(key), x);
            y = _mm512_maskz_mov_ps(seen.at(key + 1), y);
        }
        even = _mm512_add_ps(even, x);
        odd = _mm512_add_ps(odd, y);
        _mm512_store_si512(s.shares[key / 2][half], interleaved(x, y));
    }
    return _mm512_add_ps(even, odd);
}

// One step of the online softmax for 16 queries: scores become shares, 0 for keys that a query does not see.
void softmax(Scratch &s, float (*scores)[QUERIES], const Problem &p, int half, const Seen &seen, int count, int value_dim) {
    const __m512 none = _mm512_set1_ps(-INFINITY);
    __m512 scale = _mm512_set1_ps(p.scale * LOG2E);
    if (p.softcap > 0) {
        for (int key = 0; key < count; ++key) {
            const __m512 x = _mm512_mul_ps(_mm512_load_ps(&scores[key][half]), _mm512_set1_ps(p.scale / p.softcap));
            _mm512_store_ps(&scores[key][half], tanh_vector(x));
        }
        scale = _mm512_set1_ps(p.softcap * LOG2E);
    }
    const bool all = seen.by_all(count);
    const __m512 best = all ? largest<true>(scores, half, seen, count) : largest<false>(scores, half, seen, count);
    const __m512 before = _mm512_load_ps(&s.top[half]);
    const __m512 top = _mm512_max_ps(before, _mm512_mul_ps(best, scale));
    const __mmask16 any = _mm512_cmpneq_ps_mask(top, none);
    const __m512 shift = _mm512_maskz_mov_ps(any, top);
    __m512 shrink = exp2_vector(_mm512_maskz_sub_ps(any, before, shift));
    shrink = _mm512_mask_mov_ps(shrink, _mm512_cmpeq_ps_mask(before, top), _mm512_set1_ps(1.0f));
    shrink = _mm512_maskz_mov_ps(_mm512_cmpneq_ps_mask(before, none), shrink);
    const __m512 total = all ? share<true>(s, scores, half, seen, count, scale, shift) : share<false>(s, scores, half, seen, count, scale, shift);
    _mm512_store_ps(&s.top[half], top);
    _mm512_store_ps(&s.total[half], _mm512_fmadd_ps(_mm512_load_ps(&s.total[half]), shrink, total));
    if (_mm512_cmpneq_ps_mask(shrink, _mm512_set1_ps(1.0f)))
        for (int at = 0; at < value_dim; ++at)
            _mm512_store_ps(&s.sums[at][half], _mm512_mul_ps(_mm512_load_ps(&s.sums[at][half]), shrink));
}

void store_rows(const Scratch &s, const Problem &p, int head, int row, int rows) {
    for (int half = 0; half < rows; half += TILE) {
        const __m512 total = _mm512_load_ps(&s.total[half]);
        for (int at = 0; at < p.value_dim; at += TILE) {
            __m512i part[TILE];
            for (int i = 0; i < TILE; ++i)
                part[i] = _mm512_castps_si512(_mm512_div_ps(_mm512_load_ps(&s.sums[at + i][half]), total));
            transpose_16x16(part);
            const auto kept = static_cast<__mmask16>((1u << std::min(TILE, p.value_dim - at)) - 1);
            for (int i = 0; i < std::min(TILE, rows - half); ++i) {
                uint16_t *target = p.out + (row + half + i) * p.os.token + head * p.os.head + at;
                _mm256_mask_storeu_epi16(target, kept, (__m256i)_mm512_cvtneps_pbh(_mm512_castsi512_ps(part[i])));
            }
        }
    }
}

// What 16 queries, the first at key `first`, see of `real` keys that begin at key `here`.
Seen seen_keys(const Problem &p, int first, int here, int real) {
    const __m512i own = _mm512_add_epi32(_mm512_set1_epi32(first - here), _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    const int begins = first - here, ends = first - here + TILE - 1, window = p.window;
    Seen seen{_mm512_setzero_si512(), _mm512_set1_epi32(real), 0, real};
    if (window) {
        seen.low = _mm512_sub_epi32(own, _mm512_set1_epi32(window - 1));
        seen.all_from = std::max(0, ends - window + 1);
    }
    if (p.causal || window) {
        const int reach = p.causal ? 1 : window;
        seen.high = _mm512_min_epi32(seen.high, _mm512_add_epi32(own, _mm512_set1_epi32(reach)));
        seen.all_until = std::min(real, begins + reach);
    }
    return seen;
}

// The steps in which `rows` queries of a block, the first at key `first`, read what they see.
void plan_steps(Scratch &s, const Problem &p, const Layout &l, int kv_head, int block, int rows, int first) {
    s.steps.clear();
    int position = 0;  // of the span's first key among all keys that the block reads
    for (int r = p.block_spans[block]; r < p.block_spans[block + 1]; ++r) {
        const int span = p.read[r], length = p.span_length[span];
        for (int start = 0; start < length; start += KEYS) {
            const int here = position + start, real = std::min(KEYS, length - start);
            const int before = p.window ? first - p.window + 1 : 0;  // keys before this one are out of every window
            const int behind = p.causal ? first + rows : p.window ? first + rows - 1 + p.window : here + real;
            if (here >= behind || here + real <= before) continue;
            const int64_t at = l.offset[span] + start;
            s.steps.push_back({l.key(kv_head, at), l.value(kv_head, at), here, real, padded(std::min(real, behind - here), WIDE)});
        }
        position += length;
    }
}

// Queries [row, row + rows) of a head over the spans that their block reads; the first stands at key `first`.
void attend_rows(Scratch &s, const Problem &p, const Layout &l, int head, int block, int row, int rows, int first) {
    plan_steps(s, p, l, head / (p.heads / p.kv_heads), block, rows, first);
    load_queries(s, p, l.dim, head, row, rows);
    memset(s.sums, 0, sizeof(float) * QUERIES * l.value_dim);
    for (int i = 0; i < QUERIES; ++i) {
        s.top[i] = p.sinks ? p.sinks[head] * LOG2E : -INFINITY;
        s.total[i] = p.sinks ? 1.0f : 0.0f;
    }
    const size_t steps = s.steps.size();
    if (steps) multiply_keys(s, s.scores[0], s.steps[0], l.dim);
    for (size_t i = 0; i < steps; ++i) {  // tiles read what vectors wrote only after a while: other products go between
        const Step &step = s.steps[i];
        for (int half = 0; half < QUERIES; half += TILE)
            softmax(s, s.scores[i % 2], p, half, seen_keys(p, first + half, step.here, step.real), step.count, l.value_dim);
        if (i + 1 < steps) multiply_keys(s, s.scores[(i + 1) % 2], s.steps[i + 1], l.dim);
        multiply_values(s, step, l.value_dim);
    }
    store_rows(s, p, head, row, rows);
}

void attend_block(Scratch &s, const Problem &p, const Layout &l, int head, int block) {
    for (int at = 0; at < p.block_rows[block]; at += QUERIES)
        attend_rows(s, p, l, head, block, p.block_row[block] + at, std::min(QUERIES, p.block_rows[block] - at),
                    p.block_first[block] + at);
}

void run(const Problem &p, const Layout &l) {
#pragma omp parallel num_threads(p.threads)
    {
        const auto scratch = std::make_unique<Scratch>();
#pragma omp for schedule(dynamic, 1) collapse(2)
        for (int span = 0; span < p.spans; ++span)
            for (int head = 0; head < p.kv_heads; ++head) {
                lay_out_keys(p, l, head, span);
                lay_out_values(p, l, head, span);
            }
        _tile_loadconfig(&ALL_TILES);
#pragma omp for schedule(dynamic, 1) collapse(2)
        for (int block = 0; block < p.blocks; ++block)
            for (int head = 0; head < p.heads; ++head) attend_block(*scratch, p, l, head, block);
        _tile_release();
    }
}

}  // namespace

extern "C" {

// Asks the kernel for the tile registers; 0 when this process may use them.
int rs_allow_tiles() { return static_cast<int>(syscall(SYS_arch_prctl, 0x1023, 18)); }

// 0, or 1 when a size is not supported, 2 without memory.
int rs_attend(const Problem *p) {
    thread_local Memory offsets, keys, values;
    Layout l{};
    l.dim = padded(p->dim, WIDE);
    l.value_dim = padded(p->value_dim, WIDE);
    if (l.dim > MAX_DIM || l.value_dim > MAX_DIM || p->heads % p->kv_heads) return 1;
    l.offset = static_cast<int64_t *>(offsets.get(sizeof(int64_t) * (p->spans + 1)));
    if (!l.offset) return 2;
    for (int span = 0; span < p->spans; ++span) {
        l.offset[span] = l.keys;
        l.keys += padded(p->span_length[span], WIDE);
    }
    const size_t bytes = sizeof(uint16_t) * l.keys * p->kv_heads;
    l.k = static_cast<uint16_t *>(keys.get(bytes * l.dim));
    l.v = static_cast<uint16_t *>(values.get(bytes * l.value_dim));
    if (!l.k || !l.v) return 2;
    run(*p, l);
    return 0;
}
}
