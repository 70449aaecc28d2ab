// The second half of a decoder layer on CPUs with AMX: residual sum, RMS norm, gated feed-forward layer, residual sum.
//
// Threads take blocks of tokens that stay in the cache of a core from the first sum to the last; between the two only the
// weights are read from outside. Products are computed transposed, outputs x tokens: weights are read where they lie, and
// what comes out of the first product is laid out as the second one wants it. Activation and gate of one product are
// computed while the tile unit computes the next.

#include "amx.h"

namespace {

constexpr int PANEL = WIDE;        // tokens that lie together: [numbers / 2][32 tokens][2]
constexpr int DEPTH = 512;         // numbers of one step of the second product: their weights stay in the first cache
constexpr int64_t CACHE = 5 << 18; // bytes of a block that leave room for weights in a core's cache of 2 MiB
constexpr int MOST_TOKENS = 256, LEAST_TOKENS = 96;

struct FeedForward {
    const uint16_t *residual, *added;     // [rows][hidden]
    const uint16_t *norm;                 // [hidden]
    const uint16_t *gate, *up, *down;     // [inner][hidden], [inner][hidden], [hidden][inner]
    uint16_t *out;                        // [rows][hidden]
    int rows, hidden, inner;
    float epsilon;
    float linear, cubic;                  // the activation of x is x * sigmoid(linear * x + cubic * x ** 3)
    int threads;
};

// What a thread holds of a block of tokens.
struct Block {
    uint16_t *normed;                     // panels of `hidden` numbers
    uint16_t *products;                   // panels of `inner` numbers
    float (*sums)[WIDE][PANEL];           // of 32 outputs, for each panel
    uint16_t *rows;                       // a panel's tokens before they are laid out
    float (*pair)[WIDE][PANEL];           // sums of this step and of the one before
};

int block_tokens(const FeedForward &f) {
    const int64_t fitting = CACHE / (sizeof(uint16_t) * (f.hidden + f.inner)) / PANEL * PANEL;
    return static_cast<int>(std::min<int64_t>(MOST_TOKENS, fitting));
}

size_t block_bytes(const FeedForward &f, int tokens) {
    const size_t numbers = static_cast<size_t>(tokens) * (f.hidden + f.inner) + static_cast<size_t>(PANEL) * f.hidden;
    return sizeof(uint16_t) * numbers + sizeof(float) * WIDE * PANEL * (tokens / PANEL + 2);
}

Block block_in(void *memory, const FeedForward &f, int tokens) {
    Block b{};
    b.sums = static_cast<float (*)[WIDE][PANEL]>(memory);
    b.pair = b.sums + tokens / PANEL;
    b.normed = reinterpret_cast<uint16_t *>(b.pair + 2);
    b.products = b.normed + static_cast<int64_t>(tokens) * f.hidden;
    b.rows = b.products + static_cast<int64_t>(tokens) * f.inner;
    return b;
}

inline __m512 widened(__m256i numbers) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(numbers), 16));
}

inline __m512 load_numbers(const uint16_t *at) { return widened(_mm256_loadu_si256((const __m256i *)at)); }

inline __m256i narrowed(__m512 numbers) { return (__m256i)_mm512_cvtneps_pbh(numbers); }

// The residual sum of a token goes to `out`, its norm to `normed`.
void add_and_norm(const FeedForward &f, int row, uint16_t *normed) {
    const int64_t at = static_cast<int64_t>(row) * f.hidden;
    __m512 squares = _mm512_setzero_ps();
    for (int i = 0; i < f.hidden; i += TILE) {
        const __m256i sum = narrowed(_mm512_add_ps(load_numbers(f.residual + at + i), load_numbers(f.added + at + i)));
        _mm256_storeu_si256((__m256i *)(f.out + at + i), sum);
        squares = _mm512_fmadd_ps(widened(sum), widened(sum), squares);
    }
    const __m512 scale = _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / f.hidden + f.epsilon));
    for (int i = 0; i < f.hidden; i += TILE) {
        const __m256i one = narrowed(_mm512_mul_ps(load_numbers(f.out + at + i), scale));
        _mm256_storeu_si256((__m256i *)(normed + i), narrowed(_mm512_mul_ps(widened(one), load_numbers(f.norm + i))));
    }
}

// `count` rows as a panel; zeros stand for the tokens that are missing.
void lay_out(const uint16_t *rows, int count, int numbers, uint16_t *panel) {
    for (int at = 0; at < numbers; at += WIDE)
        for (int half = 0; half < PANEL; half += TILE) {
            __m512i part[TILE];
            for (int i = 0; i < TILE; ++i) {
                const uint16_t *row = rows + static_cast<int64_t>(half + i) * numbers + at;
                part[i] = half + i < count ? _mm512_loadu_si512(row) : _mm512_setzero_si512();
            }
            transpose_16x16(part);
            for (int i = 0; i < TILE; ++i) _mm512_storeu_si512(panel + (at / 2 + i) * 2 * PANEL + 2 * half, part[i]);
        }
}

inline void load_sums(const float (*sums)[PANEL]) {
    _tile_loadd(0, &sums[0][0], PANEL * 4);
    _tile_loadd(1, &sums[0][TILE], PANEL * 4);
    _tile_loadd(2, &sums[TILE][0], PANEL * 4);
    _tile_loadd(3, &sums[TILE][TILE], PANEL * 4);
}

inline void zero_sums() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

inline void store_sums(float (*sums)[PANEL]) {
    _tile_stored(0, &sums[0][0], PANEL * 4);
    _tile_stored(1, &sums[0][TILE], PANEL * 4);
    _tile_stored(2, &sums[TILE][0], PANEL * 4);
    _tile_stored(3, &sums[TILE][TILE], PANEL * 4);
}

// Adds products of twice 16 rows of weights with a panel; `between` is called once for every 32 numbers.
template <class Between>
inline void multiply(const uint16_t *first, const uint16_t *second, int64_t stride, const uint16_t *panel, int numbers,
                     Between between) {
    for (int at = 0; at < numbers; at += WIDE) {  // the panel passes by, the weights stay in the first cache
        _tile_loadd(4, first + at, stride * 2);
        _tile_stream_loadd(6, panel + at * PANEL, PANEL * 4);
        _tile_dpbf16ps(0, 4, 6);
        _tile_stream_loadd(7, panel + at * PANEL + 2 * TILE, PANEL * 4);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, second + at, stride * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        between(at);
    }
}

// Asks for the part of the next rows of weights that falls to panel `turn` of `turns`.
inline void prefetch(const uint16_t *rows, int64_t stride, int at, int turn, int turns) {
    for (int i = TILE * turn / turns; i < TILE * (turn + 1) / turns; ++i) _mm_prefetch(rows + i * stride + at, _MM_HINT_T1);
}

// Activation times gate, of 2 neighbouring outputs and 16 tokens: part `part` of 16.
inline void gate_part(const FeedForward &f, const float (*sums)[PANEL], int part, uint16_t *products) {
    const int output = part / 2 * 2, half = part % 2 * TILE;
    const auto gated = [&](int row) {
        const __m512 x = _mm512_load_ps(&sums[row][half]), one = _mm512_set1_ps(1.0f);
        const __m512 bent = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-LOG2E * f.cubic), _mm512_set1_ps(-LOG2E * f.linear));
        const __m512 share = _mm512_rcp14_ps(_mm512_add_ps(one, exp2_vector(_mm512_mul_ps(x, bent))));
        return _mm512_mul_ps(_mm512_mul_ps(x, share), _mm512_load_ps(&sums[TILE + row][half]));
    };
    _mm512_storeu_si512(products + output * PANEL + 2 * half, interleaved(gated(output), gated(output + 1)));
}

// activation(gate . tokens) * (up . tokens), 16 outputs at a time.
void gate_block(const FeedForward &f, const Block &b, int panels) {
    const int steps = f.hidden / WIDE, parts = (TILE + steps - 1) / steps;
    uint16_t *before = nullptr;  // where the products of the last step belong
    int turn = 0;
    for (int output = 0; output < f.inner; output += TILE) {
        const uint16_t *gate = f.gate + static_cast<int64_t>(output) * f.hidden;
        const uint16_t *up = f.up + static_cast<int64_t>(output) * f.hidden;
        for (int panel = 0; panel < panels; ++panel, turn ^= 1) {
            int part = 0;
            zero_sums();
            multiply(gate, up, f.hidden, b.normed + static_cast<int64_t>(panel) * PANEL * f.hidden, f.hidden, [&](int at) {
                prefetch(gate + TILE * static_cast<int64_t>(f.hidden), f.hidden, at, panel, panels);
                prefetch(up + TILE * static_cast<int64_t>(f.hidden), f.hidden, at, panel, panels);
                for (const int until = before ? std::min(TILE, part + parts) : 0; part < until; ++part)
                    gate_part(f, b.pair[turn ^ 1], part, before);
            });
            store_sums(b.pair[turn]);
            before = b.products + static_cast<int64_t>(panel) * PANEL * f.inner + static_cast<int64_t>(output) * PANEL;
        }
    }
    for (int part = 0; part < TILE; ++part) gate_part(f, b.pair[turn ^ 1], part, before);
}

// Adds 32 outputs of a panel's tokens to their rows.
void add_outputs(const float (*sums)[PANEL], uint16_t *out, int64_t stride, int count) {
    for (int half = 0; half < PANEL; half += TILE) {
        __m512i low[TILE], high[TILE];
        for (int i = 0; i < TILE; ++i) {
            low[i] = _mm512_load_si512(&sums[i][half]);
            high[i] = _mm512_load_si512(&sums[TILE + i][half]);
        }
        transpose_16x16(low);
        transpose_16x16(high);
        for (int i = 0; i < TILE && half + i < count; ++i) {
            uint16_t *at = out + (half + i) * stride;
            const __m512 first = _mm512_add_ps(_mm512_castsi512_ps(low[i]), load_numbers(at));
            const __m512 second = _mm512_add_ps(_mm512_castsi512_ps(high[i]), load_numbers(at + TILE));
            _mm512_storeu_si512(at, (__m512i)_mm512_cvtne2ps_pbh(second, first));
        }
    }
}

// down . products, 32 outputs at a time, added to the rows of the block.
void close_block(const FeedForward &f, const Block &b, int panels, uint16_t *out, int tokens) {
    const int pieces = (f.inner + DEPTH - 1) / DEPTH, depth = padded((f.inner + pieces - 1) / pieces, WIDE);
    for (int output = 0; output < f.hidden; output += WIDE) {
        const uint16_t *weights = f.down + static_cast<int64_t>(output) * f.inner;
        for (int from = 0; from < f.inner; from += depth)
            for (int panel = 0; panel < panels; ++panel) {
                const uint16_t *first = weights + from, *second = first + TILE * static_cast<int64_t>(f.inner);
                const uint16_t *products = b.products + static_cast<int64_t>(panel) * PANEL * f.inner + from * PANEL;
                if (from) load_sums(b.sums[panel]);
                else zero_sums();
                multiply(first, second, f.inner, products, std::min(depth, f.inner - from), [&](int at) {
                    prefetch(first + WIDE * static_cast<int64_t>(f.inner), f.inner, at, panel, panels);
                    prefetch(second + WIDE * static_cast<int64_t>(f.inner), f.inner, at, panel, panels);
                });
                store_sums(b.sums[panel]);
            }
        for (int panel = 0; panel < panels; ++panel)
            add_outputs(b.sums[panel], out + static_cast<int64_t>(panel) * PANEL * f.hidden + output, f.hidden,
                        std::min(PANEL, tokens - panel * PANEL));
    }
}

void compute_block(const FeedForward &f, const Block &b, int row, int tokens) {
    const int panels = (tokens + PANEL - 1) / PANEL;
    for (int panel = 0; panel < panels; ++panel) {
        const int count = std::min(PANEL, tokens - panel * PANEL);
        for (int i = 0; i < count; ++i)
            add_and_norm(f, row + panel * PANEL + i, b.rows + static_cast<int64_t>(i) * f.hidden);
        lay_out(b.rows, count, f.hidden, b.normed + static_cast<int64_t>(panel) * PANEL * f.hidden);
    }
    gate_block(f, b, panels);
    close_block(f, b, panels, f.out + static_cast<int64_t>(row) * f.hidden, tokens);
}

}  // namespace

extern "C" {

// Whether layers of that size are worth computing here: whole tiles, and blocks that fit into a core's cache.
int rs_feed_forward_fits(int hidden, int inner) {
    FeedForward f{};
    f.hidden = hidden;
    f.inner = inner;
    return hidden > 0 && inner > 0 && hidden % WIDE == 0 && inner % WIDE == 0 && block_tokens(f) >= LEAST_TOKENS;
}

// 0, or 1 when a size is not supported, 2 without memory.
int rs_feed_forward(const FeedForward *f) {
    if (!rs_feed_forward_fits(f->hidden, f->inner)) return 1;
    const int even = padded((f->rows + f->threads - 1) / f->threads, PANEL);  // few rows are shared out as well
    const int tokens = std::min(block_tokens(*f), std::max(even, PANEL));
    int failed = 0;
#pragma omp parallel num_threads(f->threads) reduction(max : failed)
    {
        thread_local Memory memory;
        void *place = memory.get(block_bytes(*f, tokens));
        if (!place) failed = 2;
        const Block block = block_in(place, *f, tokens);
        _tile_loadconfig(&ALL_TILES);
#pragma omp for schedule(dynamic, 1)
        for (int row = 0; row < f->rows; row += tokens)
            if (place) compute_block(*f, block, row, std::min(tokens, f->rows - row));
        _tile_release();
    }
    return failed;
}
}
