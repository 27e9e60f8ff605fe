/* A Vision Transformer's forward pass, to be read: the layers of keras_vit_edu in plain JavaScript.

   Numbers lie in Float32Arrays, row after row; sums are taken in doubles, which is what JavaScript's numbers are. A matrix
   of weights is kept transposed, so that every output is the product of two rows that lie in memory as they are read.
   The script needs nothing: it runs in a browser from a file, in a worker, and in Node. */
"use strict";

const ViT = (() => {
  // The files of a preset. ------------------------------------------------------------------------------------------

  /** The number that 16 bits stand for (IEEE 754 binary16), subnormals included. */
  function fromHalf(bits) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }

  /** The arrays in a safetensors file: {name: {shape, data}}, data in float32. */
  function readSafetensors(buffer) {
    const view = new DataView(buffer);
    const length = Number(view.getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
    const arrays = {};
    for (const [name, entry] of Object.entries(header)) {
      if (name === "__metadata__") continue;
      const count = entry.shape.reduce((product, size) => product * size, 1);
      const start = 8 + length + entry.data_offsets[0];
      const data = new Float32Array(count);
      for (let i = 0; i < count; i++) {
        data[i] = entry.dtype === "F16" ? fromHalf(view.getUint16(start + 2 * i, true)) : view.getFloat32(start + 4 * i, true);
      }
      arrays[name] = { shape: entry.shape, data };
    }
    return arrays;
  }

  // Functions of numbers. -------------------------------------------------------------------------------------------

  /** A polynomial, the coefficient of x^0 first. */
  function polynomial(coefficients, x) {
    let sum = 0;
    for (let i = coefficients.length - 1; i >= 0; i--) sum = sum * x + coefficients[i];
    return sum;
  }

  // erf as in fdlibm (s_erf.c, Sun Microsystems 1993): rational functions on four intervals, right to the last bit or two.
  const PP = [1.28379167095512558561e-1, -3.2504210724700149937e-1, -2.84817495755985104766e-2, -5.77027029648944159157e-3,
    -2.37630166566501626084e-5];
  const QQ = [1, 3.97917223959155352819e-1, 6.50222499887672944485e-2, 5.08130628187576562776e-3, 1.32494738004321644526e-4,
    -3.9602282787753681232e-6];
  const PA = [-2.36211856075265944077e-3, 4.14856118683748331666e-1, -3.72207876035701323847e-1, 3.18346619901161753674e-1,
    -1.10894694282396677476e-1, 3.54783043256182359371e-2, -2.166375594868790843e-3];
  const QA = [1, 1.06420880400844228286e-1, 5.40397917702171048937e-1, 7.18286544141962662868e-2, 1.26171219808761642112e-1,
    1.36370839120290507362e-2, 1.1984499846799107417e-2];
  const RA = [-9.86494403484714822705e-3, -6.93858572707181764372e-1, -1.05586262253232909814e1, -6.23753324503260060396e1,
    -1.62396669462573470355e2, -1.84605092906711035994e2, -8.12874355063065934246e1, -9.81432934416914548592];
  const SA = [1, 1.96512716674392571292e1, 1.376577541435190426e2, 4.34565877475229228821e2, 6.45387271733267880336e2,
    4.29008140027567833386e2, 1.08635005541779435134e2, 6.57024977031928170135, -6.04244152148580987438e-2];
  const RB = [-9.86494292470009928597e-3, -7.99283237680523006574e-1, -1.77579549177547519889e1, -1.60636384855821916062e2,
    -6.37566443368389627722e2, -1.02509513161107724954e3, -4.83519191608651397019e2];
  const SB = [1, 3.03380607434824582924e1, 3.25792512996573918826e2, 1.53672958608443695994e3, 3.19985821950859553908e3,
    2.55305040643316442583e3, 4.74528541206955367215e2, -2.24409524465858183362e1];
  const ERX = 8.45062911510467529297e-1;

  /** The error function. */
  function erf(x) {
    const size = Math.abs(x);
    if (!(size < 6)) return Number.isNaN(x) ? NaN : Math.sign(x);
    if (size < 0.84375) {
      const z = x * x;
      return x + (x * polynomial(PP, z)) / polynomial(QQ, z);
    }
    let value;
    if (size < 1.25) {
      const s = size - 1;
      value = ERX + polynomial(PA, s) / polynomial(QA, s);
    } else {
      const s = 1 / (size * size);
      const isNear = size < 1 / 0.35;
      const ratio = polynomial(isNear ? RA : RB, s) / polynomial(isNear ? SA : SB, s);
      value = 1 - Math.exp(-size * size - 0.5625 + ratio) / size;
    }
    return x < 0 ? -value : value;
  }

  const ACTIVATIONS = {
    linear: (x) => x,
    gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)), // the exact one
    relu: (x) => Math.max(x, 0),
    silu: (x) => x / (1 + Math.exp(-x)),
    tanh: Math.tanh,
  };

  // Layers. ---------------------------------------------------------------------------------------------------------

  /** x (rows, inputs) times a kernel, plus a bias: (rows, outputs). `kernel` is transposed: (outputs, inputs). */
  function dense(x, rows, { kernel, bias, inputs, outputs }, activation = "linear") {
    const y = new Float32Array(rows * outputs);
    const act = ACTIVATIONS[activation];
    // Four rows and two outputs at a time: each number that is read is used more than once.
    for (let r = 0; r < rows; r += 4) {
      const a0 = r * inputs;
      const a1 = Math.min(r + 1, rows - 1) * inputs;
      const a2 = Math.min(r + 2, rows - 1) * inputs;
      const a3 = Math.min(r + 3, rows - 1) * inputs;
      for (let o = 0; o < outputs; o += 2) {
        const k0 = o * inputs;
        const k1 = Math.min(o + 1, outputs - 1) * inputs;
        let s00 = 0, s01 = 0, s10 = 0, s11 = 0, s20 = 0, s21 = 0, s30 = 0, s31 = 0;
        for (let i = 0; i < inputs; i++) {
          const w0 = kernel[k0 + i], w1 = kernel[k1 + i];
          const x0 = x[a0 + i], x1 = x[a1 + i], x2 = x[a2 + i], x3 = x[a3 + i];
          s00 += x0 * w0; s01 += x0 * w1; s10 += x1 * w0; s11 += x1 * w1;
          s20 += x2 * w0; s21 += x2 * w1; s30 += x3 * w0; s31 += x3 * w1;
        }
        const sums = [s00, s01, s10, s11, s20, s21, s30, s31];
        for (let i = 0; i < 8; i++) {
          const row = r + (i >> 1), output = o + (i & 1);
          if (row < rows && output < outputs) {
            y[row * outputs + output] = act(sums[i] + (bias ? bias[output] : 0));
          }
        }
      }
    }
    return y;
  }

  /** Each row of x (rows, width) with mean 0 and variance 1, times gamma, plus beta. */
  function layerNorm(x, rows, { gamma, beta, epsilon }) {
    const width = gamma.length;
    const y = new Float32Array(x.length);
    for (let r = 0; r < rows; r++) {
      let mean = 0, variance = 0;
      for (let i = 0; i < width; i++) mean += x[r * width + i];
      mean /= width;
      for (let i = 0; i < width; i++) variance += (x[r * width + i] - mean) ** 2;
      const scale = 1 / Math.sqrt(variance / width + epsilon);
      for (let i = 0; i < width; i++) y[r * width + i] = (x[r * width + i] - mean) * scale * gamma[i] + beta[i];
    }
    return y;
  }

  /** softmax over the last axis of scores (rows, length), in place. */
  function softmax(scores, rows, length) {
    for (let r = 0; r < rows; r++) {
      const start = r * length;
      let largest = -Infinity, sum = 0;
      for (let i = 0; i < length; i++) largest = Math.max(largest, scores[start + i]);
      for (let i = 0; i < length; i++) sum += scores[start + i] = Math.exp(scores[start + i] - largest);
      for (let i = 0; i < length; i++) scores[start + i] /= sum;
    }
    return scores;
  }

  /** Multi-head attention of tokens x (count, D) over themselves.

      softmax(Q K^T / sqrt(d) / temperature + bias) V for each head; then the heads are joined and projected.
      `hidden` (count) says which keys nobody may see, `off` (heads) which heads give zeros.
      Returns {output (count, D), scores (heads, count, count), query, key, value (count, heads * d)}. */
  function attention(x, count, layer, { bias = null, hidden = null, off = null, temperature = 1 } = {}) {
    const { heads } = layer;
    const query = dense(x, count, layer.query);
    const key = dense(x, count, layer.key);
    const value = dense(x, count, layer.value);
    const width = layer.query.outputs, size = width / heads;
    const scores = new Float32Array(heads * count * count);
    const root = Math.sqrt(size) * temperature;
    for (let h = 0; h < heads; h++) {
      for (let t = 0; t < count; t++) {
        for (let s = 0; s < count; s++) {
          let product = 0;
          for (let i = h * size; i < (h + 1) * size; i++) product += query[t * width + i] * key[s * width + i];
          const place = (h * count + t) * count + s;
          scores[place] = hidden && hidden[s] ? -3e38 : product / root + (bias ? bias[place] : 0);
        }
      }
    }
    softmax(scores, heads * count, count);
    const mixed = new Float32Array(count * width);
    for (let h = 0; h < heads; h++) {
      if (off && off[h]) continue;
      for (let t = 0; t < count; t++) {
        for (let s = 0; s < count; s++) {
          const share = scores[(h * count + t) * count + s];
          for (let i = h * size; i < (h + 1) * size; i++) mixed[t * width + i] += share * value[s * width + i];
        }
      }
    }
    return { output: dense(mixed, count, layer.out), scores, query, key, value };
  }

  // The model. ------------------------------------------------------------------------------------------------------

  /** Which layer's weights have which names, as in a preset's file. */
  class Model {
    /** `config`: the flat configuration of a ViTClassifier; `arrays`: as `readSafetensors` returns them. */
    constructor(config, arrays) {
      this.config = config;
      const need = (name) => {
        if (!arrays[name]) throw new Error(`The weights hold no ${name}.`);
        return arrays[name];
      };
      const denseLayer = (name) => {
        const { shape: [inputs, outputs], data } = need(`${name}/kernel`);
        const kernel = new Float32Array(data.length);
        for (let i = 0; i < inputs; i++) for (let o = 0; o < outputs; o++) kernel[o * inputs + i] = data[i * outputs + o];
        return { kernel, bias: arrays[`${name}/bias`]?.data ?? null, inputs, outputs };
      };
      const norm = (name) => ({
        gamma: need(`${name}/gamma`).data, beta: need(`${name}/beta`).data, epsilon: config.layer_norm_epsilon,
      });
      [this.height, this.width, this.channels] = config.image_shape;
      const patch = Array.isArray(config.patch_size) ? config.patch_size : [config.patch_size, config.patch_size];
      [this.patchHeight, this.patchWidth] = patch;
      this.rows = this.height / this.patchHeight;
      this.columns = this.width / this.patchWidth;
      this.prefix = config.num_prefix_tokens;
      this.count = this.prefix + this.rows * this.columns;
      this.size = config.projection_dim;
      if (config.stem === "conv") this.stem = this.#convolutions(need);
      this.projection = denseLayer("backbone/patch_encoder/projection");
      this.positions = need("backbone/patch_encoder/position_embedding").data;
      this.prefixTokens = this.prefix ? need("backbone/patch_encoder/prefix_tokens").data : new Float32Array(0);
      this.blocks = Array.from({ length: config.num_layers }, (_, i) => {
        const name = `backbone/transformer_block_${i}`;
        return {
          attentionNorm: norm(`${name}/attention_norm`),
          attention: {
            heads: config.num_heads,
            query: denseLayer(`${name}/attention/q_dense`),
            key: denseLayer(`${name}/attention/k_dense`),
            value: denseLayer(`${name}/attention/v_dense`),
            out: denseLayer(`${name}/attention/out_dense`),
          },
          bias: arrays[`${name}/position_bias/table`] ? this.#positionBias(arrays[`${name}/position_bias/table`]) : null,
          mlpNorm: norm(`${name}/mlp_norm`),
          hidden: denseLayer(`${name}/mlp_hidden`),
          output: denseLayer(`${name}/mlp_output`),
        };
      });
      this.encoderNorm = norm("backbone/encoder_norm");
      if (config.head === "sequence") this.pooling = denseLayer("sequence_pooling/score_dense");
      this.headLayers = config.head_units.map((_, i) => denseLayer(`head_dense_${i}`));
      this.logits = denseLayer("logits");
    }

    /** The table of a RelativePositionBias as (heads, count, count); prefix tokens have bias 0. */
    #positionBias({ shape: [heads, offsets], data }) {
      const { rows, columns, count, prefix } = this;
      const bias = new Float32Array(heads * count * count);
      for (let h = 0; h < heads; h++) {
        for (let q = 0; q < rows * columns; q++) {
          for (let k = 0; k < rows * columns; k++) {
            const down = Math.floor(k / columns) - Math.floor(q / columns) + rows - 1;
            const across = (k % columns) - (q % columns) + columns - 1;
            const place = (h * count + prefix + q) * count + prefix + k;
            bias[place] = data[h * offsets + down * (2 * columns - 1) + across];
          }
        }
      }
      return bias;
    }

    #convolutions(need) {
      const { stem_filters: filters, stem_strides: strides, stem_pools: pools, stem_normalization: normalization } = this.config;
      return filters.map((_, i) => {
        const { shape: [height, width, inputs, outputs], data } = need(`backbone/conv_stem/convolution_${i}/kernel`);
        const length = height * width * inputs;
        const kernel = new Float32Array(data.length);
        for (let j = 0; j < length; j++) for (let o = 0; o < outputs; o++) kernel[o * length + j] = data[j * outputs + o];
        return {
          dense: { kernel, bias: need(`backbone/conv_stem/convolution_${i}/bias`).data, inputs: length, outputs },
          inputs, outputs, stride: strides?.[i] ?? 2, pool: pools?.[i] ?? 1,
          norm: normalization ? {
            gamma: need(`backbone/conv_stem/normalization_${i}/gamma`).data,
            beta: need(`backbone/conv_stem/normalization_${i}/beta`).data,
            epsilon: 1e-6,
          } : null,
        };
      });
    }

    /** The vectors of the patches (N, P) of an image (H, W, C), in reading order. */
    patches(image) {
      if (this.config.stem === "conv") return this.#convolve(image);
      const views = [image];
      if (this.config.stem === "shifted") {
        const up = this.patchHeight >> 1, left = this.patchWidth >> 1;
        for (const down of [up, -up]) for (const across of [left, -left]) views.push(this.#shifted(image, down, across));
      }
      const { rows, columns, patchHeight, patchWidth, width, channels } = this;
      const vectors = new Float32Array(views.length * image.length);
      let place = 0;
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          for (let y = row * patchHeight; y < (row + 1) * patchHeight; y++) {
            for (let x = column * patchWidth; x < (column + 1) * patchWidth; x++) {
              for (const view of views) {
                for (let c = 0; c < channels; c++) vectors[place++] = view[(y * width + x) * channels + c];
              }
            }
          }
        }
      }
      return vectors;
    }

    /** The image whose pixel (y, x) is pixel (y + down, x + across) of this one; 0 outside. */
    #shifted(image, down, across) {
      const { height, width, channels } = this;
      const moved = new Float32Array(image.length);
      for (let y = Math.max(0, -down); y < Math.min(height, height - down); y++) {
        for (let x = Math.max(0, -across); x < Math.min(width, width - across); x++) {
          for (let c = 0; c < channels; c++) {
            moved[(y * width + x) * channels + c] = image[((y + down) * width + x + across) * channels + c];
          }
        }
      }
      return moved;
    }

    #convolve(image) {
      let x = image, { height, width } = this;
      for (const layer of this.stem) {
        const { stride, inputs, outputs, pool } = layer;
        const newHeight = Math.ceil(height / stride), newWidth = Math.ceil(width / stride);
        // Each place of the output sees 3 x 3 places; a row holds them, so that a product of matrices is left.
        const seen = new Float32Array(newHeight * newWidth * 9 * inputs);
        for (let row = 0; row < newHeight; row++) {
          for (let column = 0; column < newWidth; column++) {
            for (let dy = 0; dy < 3; dy++) {
              for (let dx = 0; dx < 3; dx++) {
                const y = row * stride + dy - 1, z = column * stride + dx - 1;
                if (y < 0 || y >= height || z < 0 || z >= width) continue;
                const to = ((row * newWidth + column) * 9 + dy * 3 + dx) * inputs;
                for (let c = 0; c < inputs; c++) seen[to + c] = x[(y * width + z) * inputs + c];
              }
            }
          }
        }
        x = dense(seen, newHeight * newWidth, layer.dense);
        if (layer.norm) x = layerNorm(x, newHeight * newWidth, layer.norm);
        const act = ACTIVATIONS[this.config.stem_activation ?? this.config.activation];
        x = x.map(act);
        [height, width] = [newHeight, newWidth];
        if (pool > 1) [x, height, width] = maxPool(x, height, width, outputs, pool);
      }
      return x;
    }

    /** Tokens (count, D) of an image. `order` puts other positions to the patches, or null for none. */
    embed(image, { order } = {}) {
      const { prefix, size, count } = this;
      const projected = dense(this.patches(image), count - prefix, this.projection);
      const tokens = new Float32Array(count * size);
      tokens.set(this.prefixTokens);
      tokens.set(projected, prefix * size);
      for (let t = 0; t < count; t++) {
        if (order === null && t >= prefix) continue;
        const from = order && t >= prefix ? prefix + order[t - prefix] : t;
        for (let i = 0; i < size; i++) tokens[t * size + i] += this.positions[from * size + i];
      }
      return tokens;
    }

    /** The whole way from an image (H, W, C) in [0, 1] to logits.

        `changes`: {hidden: patches (N) that nobody sees, off: for each block the heads (h) that give zeros, skip: blocks
        that do nothing, order: other positions, or null for none, temperature: of the softmax}.
        Returns {tokens: before the first block and after each, scores, parts: query, key and value of each block, final,
        pooling, logits, probabilities}. */
    forward(image, changes = {}) {
      const { count, prefix } = this;
      const { hidden = null, off = null, skip = null, temperature = 1 } = changes;
      let keys = null;
      if (hidden) {
        keys = new Uint8Array(count);
        keys.set(hidden, prefix);
      }
      let x = this.embed(image, changes);
      const tokens = [x], scores = [], parts = [];
      this.blocks.forEach((block, i) => {
        if (!(skip && skip[i])) {
          const found = attention(layerNorm(x, count, block.attentionNorm), count, block.attention, {
            bias: block.bias, hidden: keys, off: off && off[i], temperature,
          });
          x = add(x, found.output);
          const wide = dense(layerNorm(x, count, block.mlpNorm), count, block.hidden, this.config.activation);
          x = add(x, dense(wide, count, block.output, this.config.output_activation ?? "linear"));
          scores.push(found.scores);
          parts.push(found);
        } else {
          scores.push(null);
          parts.push(null);
        }
        tokens.push(x);
      });
      const final = layerNorm(x, count, this.encoderNorm);
      const { logits, pooling } = this.head(final, hidden);
      return { tokens, scores, parts, final, pooling, logits, probabilities: softmax(logits.slice(), 1, logits.length) };
    }

    /** Logits of tokens (count, D) after the last normalisation; patches in `hidden` are left out. */
    head(final, hidden = null) {
      const { count, prefix, size } = this;
      const kind = this.config.head;
      const shown = (t) => !(hidden && t >= prefix && hidden[t - prefix]);
      let features, pooling = null;
      if (kind === "flatten") {
        features = final.slice();
        for (let t = 0; t < count; t++) if (!shown(t)) features.fill(0, t * size, (t + 1) * size);
      } else if (kind === "token") {
        features = final.slice(0, size);
      } else {
        const first = kind === "mean_with_prefix" ? 0 : prefix;
        const shares = new Float32Array(count - first);
        if (kind === "sequence") {
          shares.set(dense(final.subarray(first * size), count - first, this.pooling));
          for (let t = first; t < count; t++) if (!shown(t)) shares[t - first] = -3e38;
          pooling = softmax(shares, 1, shares.length);
        } else {
          for (let t = first; t < count; t++) shares[t - first] = shown(t) ? 1 : 0;
          const sum = shares.reduce((total, share) => total + share, 0);
          for (let t = 0; t < shares.length; t++) shares[t] /= sum;
        }
        const sums = new Float64Array(size);
        for (let t = first; t < count; t++) for (let i = 0; i < size; i++) sums[i] += shares[t - first] * final[t * size + i];
        features = Float32Array.from(sums);
      }
      for (const layer of this.headLayers) features = dense(features, 1, layer, this.config.head_activation);
      return { logits: dense(features, 1, this.logits, this.config.logits_activation ?? "linear"), pooling };
    }

    /** What the head would say after each block: an array of logits. */
    logitLens(tokens) {
      return tokens.map((x) => this.head(layerNorm(x, this.count, this.encoderNorm)).logits);
    }
  }

  function add(a, b) {
    const sum = new Float32Array(a.length);
    for (let i = 0; i < a.length; i++) sum[i] = a[i] + b[i];
    return sum;
  }

  /** The largest of each square; at the edges of what is there ("same": what is missing lies half on each side). */
  function maxPool(x, height, width, channels, pool) {
    const newHeight = Math.ceil(height / pool), newWidth = Math.ceil(width / pool);
    const up = (newHeight * pool - height) >> 1, left = (newWidth * pool - width) >> 1;
    const y = new Float32Array(newHeight * newWidth * channels).fill(-Infinity);
    for (let r = 0; r < height; r++) {
      for (let c = 0; c < width; c++) {
        const to = (Math.floor((r + up) / pool) * newWidth + Math.floor((c + left) / pool)) * channels;
        for (let i = 0; i < channels; i++) y[to + i] = Math.max(y[to + i], x[(r * width + c) * channels + i]);
      }
    }
    return [y, newHeight, newWidth];
  }

  /** Attention rollout (Abnar and Zuidema 2020): scores of each block, (heads, count, count), to (count, count). */
  function rollout(scores, heads, count) {
    let flow = new Float64Array(count * count);
    for (let t = 0; t < count; t++) flow[t * count + t] = 1;
    for (const of of scores) {
      if (!of) continue;
      const next = new Float64Array(count * count);
      for (let t = 0; t < count; t++) {
        for (let s = 0; s < count; s++) {
          let share = t === s ? 1 : 0;
          for (let h = 0; h < heads; h++) share += of[(h * count + t) * count + s] / heads;
          share /= 2;
          for (let u = 0; u < count; u++) next[t * count + u] += share * flow[s * count + u];
        }
      }
      flow = next;
    }
    return flow;
  }

  return { Model, attention, dense, erf, fromHalf, layerNorm, readSafetensors, rollout, softmax, ACTIVATIONS };
})();

if (typeof module !== "undefined") module.exports = ViT;
