/* Weights in the order in which kernels read them. */
typedef struct {
    int tap; /* of the kernel */
    double factor;
} cj_term;

/* [phase][group][block of outputs][tap][channel][output]: a tap is a sum of some of the kernel's, mostly of one. */
typedef struct {
    const float *weight; /* [groups * group_outputs][kernel_taps][channels] */
    float *packed;
    const cj_term *terms;  /* of all taps of all phases */
    const int *tap_terms;  /* how many each tap has */
    const int *phase_taps; /* how many each phase has */
    int phases, kernel_taps, channels, groups, group_outputs, block_width;
    int last_width; /* of the last block of a group, which may be narrower; its missing outputs are zeros */
    int pairs;      /* bf16 in pairs of channels: [tap][channel / 2][output][2] */
} cj_packing;

enum { TRANSPOSED_AT_ONCE = 16 };

static inline __attribute__((always_inline)) void sum_terms(float *sums, const cj_packing *p, const float *from,
                                                            const cj_term *terms, int num_terms, int count)
{
    double exact[TRANSPOSED_AT_ONCE] = {0};
    for (int t = 0; t < num_terms; t++)
        for (int c = 0; c < count; c++)
            exact[c] += terms[t].factor * from[(long)terms[t].tap * p->channels + c];
    for (int c = 0; c < count; c++)
        sums[c] = exact[c];
}

/* Rounded to the nearest, ties to even. */
static uint16_t bf16_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static void put(const cj_packing *p, float *to, int channel, int o, int width, float value)
{
    if (p->pairs)
        ((uint16_t *)to)[((long)channel / 2 * width + o) * 2 + channel % 2] = bf16_of(value);
    else
        to[(long)channel * width + o] = value;
}

/* Floats of a tap of one block. */
static long tap_floats(const cj_packing *p, int width)
{
    return (long)p->channels * width / (p->pairs ? 2 : 1);
}

/* One tap of one block: sums [outputs][channels], transposed to [channels][width]. */
static void pack_tap(const cj_packing *p, const float *from, const cj_term *terms, int num_terms, float *to,
                     int outputs, int width)
{
    const long output_step = (long)p->kernel_taps * p->channels;
    if (outputs < width)
        memset(to, 0, sizeof(float) * tap_floats(p, width));
    for (int first = 0; first < p->channels; first += TRANSPOSED_AT_ONCE) {
        const int left = p->channels - first, count = left < TRANSPOSED_AT_ONCE ? left : TRANSPOSED_AT_ONCE;
        for (int o = 0; o < outputs; o++) {
            float sums[TRANSPOSED_AT_ONCE];
            if (count == TRANSPOSED_AT_ONCE) /* a loop of a known length, which the compiler turns into vectors */
                sum_terms(sums, p, from + o * output_step + first, terms, num_terms, TRANSPOSED_AT_ONCE);
            else
                sum_terms(sums, p, from + o * output_step + first, terms, num_terms, count);
            for (int c = 0; c < count; c++)
                put(p, to, first + c, o, width, sums[c]);
        }
    }
}

/* Items are the taps of all blocks, in the order of the packed weight. */
static void pack_items(const cj_packing *p, long first, long end)
{
    long item = 0;
    float *to = p->packed;
    const cj_term *terms = p->terms;
    const int *tap_terms = p->tap_terms;
    for (int phase = 0; phase < p->phases; phase++) {
        const int taps = p->phase_taps[phase];
        for (int group = 0; group < p->groups; group++)
            for (int o = 0; o < p->group_outputs; o += p->block_width) {
                const int left = p->group_outputs - o, last = left <= p->block_width;
                const int width = last ? p->last_width : p->block_width;
                const float *from = p->weight + ((long)group * p->group_outputs + o) * p->kernel_taps * p->channels;
                const cj_term *of_tap = terms;
                for (int tap = 0; tap < taps; of_tap += tap_terms[tap++], item++, to += tap_floats(p, width))
                    if (first <= item && item < end)
                        pack_tap(p, from, of_tap, tap_terms[tap], to, last ? left : width, width);
            }
        for (int tap = 0; tap < taps; tap++)
            terms += *tap_terms++;
    }
}

static long items_of(const cj_packing *p)
{
    const long blocks = (p->group_outputs + p->block_width - 1) / p->block_width;
    long items = 0;
    for (int phase = 0; phase < p->phases; phase++)
        items += p->groups * blocks * p->phase_taps[phase];
    return items;
}

/* As a step of a stretch: arrays are the cj_packing, whose own addresses are not looked at, the weight, and what it is
 * packed into. Weights of several images lie one behind the other. */
static long items_of_call(const cj_call *call)
{
    return call->batch * items_of((const cj_packing *)call->arrays[0].data);
}

static void pack_items_of_call(const cj_call *call, char *scratch, long first, long end)
{
    cj_packing one = *(const cj_packing *)call->arrays[0].data;
    const long items = items_of(&one);
    (void)scratch;
    for (long image = first / items; image * items < end; image++) {
        const long from = first - image * items, to = end - image * items;
        one.weight = (const float *)(call->arrays[1].data + image * call->arrays[1].batch_step);
        one.packed = (float *)(call->arrays[2].data + image * call->arrays[2].batch_step);
        pack_items(&one, from > 0 ? from : 0, to < items ? to : items);
    }
}

const cj_kernel cj_packing_kernel = {
    .num_stages = 1,
    .stages = { { items_of_call, pack_items_of_call } },
};

static void pack_share(const void *argument, int thread, long first, long end)
{
    (void)thread;
    pack_items(argument, first, end);
}

void cj_pack(const cj_packing *p, int threads)
{
    const int granted = enter_pool(threads);
    run_units(pack_share, p, items_of(p), granted);
    leave_pool(granted);
}
