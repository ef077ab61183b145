// The hot operations of backend.py, each in one pass over memory. No sum depends on the order of threads: what
// several positions share is gathered by its own thread, what one position has is summed within one block.
//
// b positions, m probe modes, k points within a pixel, windows of ny × nx pixels, `modes` = m k; arrays are
// contiguous, complex numbers are float2.

__device__ inline float2 times(float2 a, float2 b) { return {a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x}; }
__device__ inline float2 conj_times(float2 a, float2 b) { return {a.x * b.x + a.y * b.y, a.x * b.y - a.y * b.x}; }
__device__ inline float2 times(float2 a, float s) { return {a.x * s, a.y * s}; }
__device__ inline void add(float2 &total, float2 a) { total.x += a.x; total.y += a.y; }
__device__ inline float power(float2 a) { return a.x * a.x + a.y * a.y; }

struct Sum { __device__ static float of(float a, float b) { return a + b; } };
struct Largest { __device__ static float of(float a, float b) { return fmaxf(a, b); } };

// Reduces a value of every thread of a block of 1024; all threads get the result.
template <class Operation> __device__ float over_block(float value) {
    __shared__ float held[1024];
    held[threadIdx.x] = value;
    __syncthreads();
    for (int half = 512; half > 0; half /= 2) {
        if (threadIdx.x < half) held[threadIdx.x] = Operation::of(held[threadIdx.x], held[threadIdx.x + half]);
        __syncthreads();
    }
    value = held[0];
    __syncthreads();
    return value;
}

#define PIXEL_OF(count) \
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x; \
    if (pixel >= (count)) return

extern "C" {

// out[b, m] = probe_hat[m] · rows[b]ᵀ columns[b]
__global__ void ramped(const float2 *probe_hat, const float2 *rows, const float2 *columns, float2 *out, int m,
                       int ny, int nx) {
    PIXEL_OF(ny * nx);
    const int wave = blockIdx.y, b = wave / m;
    const float2 ramp = times(rows[b * ny + pixel / nx], columns[b * nx + pixel % nx]);
    out[(size_t)wave * ny * nx + pixel] = times(probe_hat[(wave % m) * ny * nx + pixel], ramp);
}

// out[b, m k] = weights[k] · probes[b, m] · obj[window b]
__global__ void exit_waves(const float2 *obj, const float2 *probes, const float2 *weights, const long long *corner,
                           float2 *out, int m, int k, int ny, int nx, int width) {
    const int n = ny * nx;
    PIXEL_OF(n);
    const int b = blockIdx.y;
    const float2 o = obj[(corner[2 * b] + pixel / nx) * width + corner[2 * b + 1] + pixel % nx];
    for (int mode = 0; mode < m; mode++) {
        const size_t wave = (size_t)b * m + mode;
        const float2 exit = times(o, probes[wave * n + pixel]);
        for (int point = 0; point < k; point++)
            out[(wave * k + point) * n + pixel] = times(exit, weights[point * n + pixel]);
    }
}

// waves[b] += alone · phases[b] rows[b]ᵀ columns[b] where there is such, then *= the factor of the likelihood;
// one block for each position
__global__ void residual(float2 *waves, const float2 *alone, const float2 *rows, const float2 *columns,
                         const float2 *phases, const float *amplitude, const float *scale, float *moments,
                         int modes, int ny, int nx, int poisson, float floor, float extra) {
    const int b = blockIdx.x, n = ny * nx;
    const float s = scale[b];
    float error = 0, cross = 0, own = 0;
    for (int pixel = threadIdx.x; pixel < n; pixel += blockDim.x) {
        float2 *wave = waves + (size_t)b * modes * n + pixel;
        float intensity = 0;
        if (alone) {
            const float2 ramp = times(rows[b * ny + pixel / nx], columns[b * nx + pixel % nx]);
            for (int mode = 0; mode < modes; mode++)
                add(wave[(size_t)mode * n], times(alone[mode * n + pixel], times(ramp, phases[b * modes + mode])));
        }
        for (int mode = 0; mode < modes; mode++) intensity += power(wave[(size_t)mode * n]);
        float measured = amplitude[(size_t)b * n + pixel];
        const float valid = measured >= 0 ? 1 : 0;
        measured *= valid;
        const float modulus = sqrtf(intensity + floor);
        const float difference = valid * (measured - s * modulus);
        error += difference * difference;
        cross += measured * modulus;
        own += valid * modulus * modulus;
        const float factor =
            poisson ? valid * s * s * 0.5f * ((measured * measured + extra) / (s * s * intensity + extra) - 1)
                    : s * difference / modulus;
        for (int mode = 0; mode < modes; mode++) wave[(size_t)mode * n] = times(wave[(size_t)mode * n], factor);
    }
    error = over_block<Sum>(error);
    cross = over_block<Sum>(cross);
    own = over_block<Sum>(own);
    if (threadIdx.x == 0) {
        moments[3 * b] = error;
        moments[3 * b + 1] = cross;
        moments[3 * b + 2] = own;
    }
}

// out[b, m] = Σ_k conj(weights[k]) · waves[b, m k]
__global__ void combine(const float2 *waves, const float2 *weights, float2 *out, int k, int n) {
    PIXEL_OF(n);
    const size_t wave = blockIdx.y;
    float2 total = {0, 0};
    for (int point = 0; point < k; point++)
        add(total, conj_times(weights[point * n + pixel], waves[(wave * k + point) * n + pixel]));
    out[wave * n + pixel] = total;
}

// total[mode] += Σ_b waves[b, mode] · conj(phases[b, mode] rows[b]ᵀ columns[b]): undoes the shifts
__global__ void collect(const float2 *waves, const float2 *rows, const float2 *columns, const float2 *phases,
                        float2 *total, int count, int modes, int ny, int nx) {
    const int n = ny * nx;
    PIXEL_OF(n);
    const int mode = blockIdx.y, r = pixel / nx, c = pixel % nx;
    float2 found = {0, 0};
    for (int b = 0; b < count; b++) {
        float2 ramp = times(rows[b * ny + r], columns[b * nx + c]);
        if (phases) ramp = times(ramp, phases[b * modes + mode]);
        add(found, conj_times(ramp, waves[((size_t)b * modes + mode) * n + pixel]));
    }
    add(total[mode * n + pixel], found);
}

// gradient += Σ_b Σ_m conj(probes[b, m]) residual[b, m], each in its window; a thread for each pixel of the object
__global__ void add_object(float2 *gradient, const float2 *probes, const float2 *residual, const long long *corner,
                           int count, int m, int ny, int nx, int height, int width) {
    PIXEL_OF(height * width);
    const int row = pixel / width, column = pixel % width;
    float2 found = {0, 0};
    for (int b = 0; b < count; b++) {
        const int r = row - (int)corner[2 * b], c = column - (int)corner[2 * b + 1];
        if (r < 0 || r >= ny || c < 0 || c >= nx) continue;
        for (int mode = 0; mode < m; mode++) {
            const size_t here = (((size_t)b * m + mode) * ny + r) * nx + c;
            add(found, conj_times(probes[here], residual[here]));
        }
    }
    add(gradient[pixel], found);
}

// slopes[b] = Σ Re(conj(∂O) Σ_m conj(probes) residual) along rows and columns; one block for each position
__global__ void position_slopes(const float2 *probes, const float2 *residual, const float2 *down, const float2 *right,
                       const long long *corner, float *slopes, int m, int ny, int nx, int width) {
    const int b = blockIdx.x, n = ny * nx;
    float first = 0, second = 0;
    for (int pixel = threadIdx.x; pixel < n; pixel += blockDim.x) {
        float2 change = {0, 0};
        for (int mode = 0; mode < m; mode++) {
            const size_t here = ((size_t)b * m + mode) * n + pixel;
            add(change, conj_times(probes[here], residual[here]));
        }
        const long long place = (corner[2 * b] + pixel / nx) * width + corner[2 * b + 1] + pixel % nx;
        first += conj_times(down[place], change).x;
        second += conj_times(right[place], change).x;
    }
    first = over_block<Sum>(first);
    second = over_block<Sum>(second);
    if (threadIdx.x == 0) {
        slopes[2 * b] = first;
        slopes[2 * b + 1] = second;
    }
}

// out[b, m] = conj(obj[window b]) · residual[b, m]
__global__ void object_times(const float2 *obj, const float2 *residual, const long long *corner, float2 *out, int m,
                             int ny, int nx, int width) {
    PIXEL_OF(ny * nx);
    const int wave = blockIdx.y, b = wave / m;
    const float2 o = obj[(corner[2 * b] + pixel / nx) * width + corner[2 * b + 1] + pixel % nx];
    const size_t here = (size_t)wave * ny * nx + pixel;
    out[here] = conj_times(o, residual[here]);
}

// one position of the ePIE family; a single block
__global__ void pie_update(float2 *obj, const float2 *probes, const float2 *residual, const long long *corner,
                           float2 *change, int m, int ny, int nx, int width, float object_step,
                           float object_damping, float probe_step, float probe_damping) {
    const int n = ny * nx;
    float2 *window = obj + corner[0] * width + corner[1];
    float brightest = 0, clearest = 0;
    for (int pixel = threadIdx.x; pixel < n; pixel += blockDim.x) {
        float lit = 0;
        for (int mode = 0; mode < m; mode++) lit += power(probes[mode * n + pixel]);
        brightest = fmaxf(brightest, lit);
        clearest = fmaxf(clearest, power(window[pixel / nx * width + pixel % nx]));
    }
    brightest = over_block<Largest>(brightest);
    clearest = over_block<Largest>(clearest);
    for (int pixel = threadIdx.x; pixel < n; pixel += blockDim.x) {
        float2 &o = window[pixel / nx * width + pixel % nx];
        float lit = 0;
        for (int mode = 0; mode < m; mode++) lit += power(probes[mode * n + pixel]);
        const float weight = object_step / ((1 - object_damping) * lit + object_damping * brightest);
        const float own = probe_step / ((1 - probe_damping) * power(o) + probe_damping * clearest);
        float2 step = {0, 0};
        for (int mode = 0; mode < m; mode++) {
            const int here = mode * n + pixel;
            change[here] = times(conj_times(o, residual[here]), own);
            add(step, conj_times(probes[here], residual[here]));
        }
        add(o, times(step, weight));
    }
}
}
