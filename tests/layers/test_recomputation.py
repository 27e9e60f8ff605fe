"""Dropout under recomputation (keras.remat, torch.utils.checkpoint, tf.recompute_grad, jax.checkpoint).

The backward pass runs the forward pass again. What it gives must be what plain differentiation gives: expected values
come from the same layers without recomputation, and from the masks of `random.dropout_mask`.
"""

import gc
import threading

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit_edu import random
from keras_vit_edu.layers import PortableDropout, TransformerBlock
from tests.support import BACKEND, to_numpy, vit_classifier

TOKENS = np.random.default_rng(0).normal(size=(4, 6, 8)).astype("float32")


def counter_of(layer):
    return int(ops.convert_to_numpy(layer.seed_generator.state)[1])


def block():
    layer = TransformerBlock(2, 4, 16, dropout=0.3, attention_dropout=0.3, stochastic_depth=0.4, seed=1)
    layer.build(TOKENS.shape)
    return layer


def dropout(rate=0.5, seed=3):
    layer = PortableDropout(rate, seed=seed)
    layer.build(TOKENS.shape)
    return layer


def state_of(*layers):
    return [[ops.convert_to_numpy(v) for v in layer.non_trainable_variables] for layer in layers]


def set_state(state, *layers):
    for values, layer in zip(state, layers, strict=True):
        for value, variable in zip(values, layer.non_trainable_variables, strict=True):
            variable.assign(value)


if BACKEND == "torch":
    import torch
    from torch.utils.checkpoint import checkpoint

    def gradient(function, *arrays):
        """Of the sum of `function`'s squares, with respect to each array."""
        tensors = [torch.tensor(array, requires_grad=True) for array in arrays or (TOKENS,)]
        function(*tensors).square().sum().backward()
        return [tensor.grad.numpy() for tensor in tensors]

    def non_reentrant(function):
        return lambda *args: checkpoint(function, *args, use_reentrant=False)

    def reentrant(function):
        return lambda *args: checkpoint(function, *args, use_reentrant=True)

    RECOMPUTED = {"keras.remat": keras.remat, "use_reentrant=False": non_reentrant, "use_reentrant=True": reentrant}

if BACKEND == "tensorflow":
    import tensorflow as tf

    def eager_gradient(function, *arrays):
        tensors = [tf.constant(array) for array in arrays or (TOKENS,)]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            loss = tf.reduce_sum(tf.square(function(*tensors)))
        return [to_numpy(x).astype("float32") for x in tape.gradient(loss, tensors)]

    def gradient(function, *arrays):
        """Of the sum of `function`'s squares, with respect to each array; the same eagerly and in a graph."""
        return eager_gradient(function, *arrays)

    def graph_gradient(function, *arrays):
        @tf.function
        def step(*tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                loss = tf.reduce_sum(tf.square(function(*tensors)))
            return tape.gradient(loss, tensors)

        return [to_numpy(x).astype("float32") for x in step(*(tf.constant(a) for a in arrays or (TOKENS,)))]

    RECOMPUTED = {"keras.remat": keras.remat, "tf.recompute_grad": tf.recompute_grad}

if BACKEND in ("torch", "tensorflow"):

    def assert_recomputes(function, wrapped, *layers, gradient=gradient, rtol=1e-6):
        """`wrapped` has `function`'s gradients and leaves the layers' counters where `function` does."""
        before = state_of(*layers)
        expected = gradient(function)
        after = state_of(*layers)
        set_state(before, *layers)
        for found, wanted in zip(gradient(wrapped), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=rtol, atol=1e-6 * np.abs(wanted).max())
        assert state_of(*layers)[0][0].tolist() == after[0][0].tolist()
        np.testing.assert_equal(state_of(*layers), after)

    # One layer, one segment. ------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("recomputed", RECOMPUTED)
    @pytest.mark.parametrize("make", [dropout, block])
    def test_gradients_and_counters_are_those_of_a_plain_step(make, recomputed):
        layer = make()

        def function(x):
            return layer(x * x, training=True)

        for _ in range(3):
            assert_recomputes(function, RECOMPUTED[recomputed](function), layer)

    @pytest.mark.parametrize("recomputed", RECOMPUTED)
    def test_the_gradient_passes_where_the_mask_of_the_counter_lets_it(recomputed):
        layer = dropout()
        wrapped = RECOMPUTED[recomputed](lambda x: layer(x, training=True) * 1.0)
        for counter in range(3):
            keep = random.dropout_mask(3, counter, TOKENS.shape, 0.5)
            (found,) = gradient(wrapped)
            np.testing.assert_allclose(found, keep * 8 * TOKENS, rtol=1e-6)  # of (2 x)^2
            assert counter_of(layer) == counter + 1

    # Several calls, several segments. ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("recomputed", RECOMPUTED)
    def test_several_calls_in_one_segment_repeat_each_its_mask(recomputed):
        layer, other = dropout(), dropout(0.3, seed=8)

        def function(x):
            for _ in range(3):
                x = layer(x * x + 1, training=True) + other(x, training=True)
            return x

        assert_recomputes(function, RECOMPUTED[recomputed](function), layer, other)

    @pytest.mark.parametrize("recomputed", RECOMPUTED)
    def test_segments_that_share_a_layer_repeat_each_its_own(recomputed):
        layer = dropout()

        def part(x):
            return layer(x * x + 1, training=True)

        wrapped = RECOMPUTED[recomputed](part)
        assert_recomputes(lambda x: part(part(x)) + part(2 * x), lambda x: wrapped(wrapped(x)) + wrapped(2 * x), layer)

    @pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning:torch")
    @pytest.mark.parametrize("recomputed", RECOMPUTED)
    def test_segments_may_lie_in_each_other(recomputed):
        layer = dropout()
        wrap = RECOMPUTED[recomputed]

        def part(x):
            return layer(x * x + 1, training=True)

        inner = wrap(part)
        outer = wrap(lambda x: part(inner(part(inner(x))) * x))
        assert_recomputes(lambda x: part(part(part(part(x))) * x), outer, layer)

    @pytest.mark.parametrize("recomputed", RECOMPUTED)
    def test_draws_outside_of_segments_lie_between_those_inside(recomputed):
        layer = dropout()

        def part(x):
            return layer(x * x + 1, training=True)

        wrapped = RECOMPUTED[recomputed](part)
        assert_recomputes(lambda x: part(part(part(x))), lambda x: part(wrapped(part(x))), layer)

    # What may happen between a forward pass and its backward pass. ----------------------------------------------------

    @pytest.mark.parametrize("recomputed", RECOMPUTED)
    def test_a_forward_pass_that_fails_disturbs_no_later_one(recomputed):
        layer = dropout()

        def fails(x):
            layer(x, training=True)
            raise KeyError("on purpose")

        with pytest.raises(KeyError):
            gradient(RECOMPUTED[recomputed](fails))
        assert_recomputes(
            lambda x: layer(x * x, training=True), RECOMPUTED[recomputed](lambda x: layer(x * x, training=True)), layer
        )

    def test_steps_of_a_classifier_are_those_without_recomputation():
        def steps(wrap):
            keras.utils.set_random_seed(0)
            model = vit_classifier(num_classes=3, image_shape=(8, 8, 1), patch_size=4, projection_dim=8, num_layers=2,
                                  num_heads=2, key_dim=4, mlp_dim=16, stochastic_depth=0.3, dropout=0.3,
                                  head_units=(8,))  # fmt: skip
            images = keras.random.uniform((4, 8, 8, 1), seed=0)
            optimizer = keras.optimizers.SGD(0.1)
            optimizer.build(model.trainable_variables)
            function = wrap(lambda x: model(x, training=True))
            for _ in range(3):
                values = [variable.value for variable in model.trainable_variables]
                if BACKEND == "torch":
                    loss = function(images).square().sum()
                    gradients = torch.autograd.grad(loss, values)
                    with torch.no_grad():
                        optimizer.apply(gradients, model.trainable_variables)
                else:
                    with tf.GradientTape() as tape:
                        loss = tf.reduce_sum(tf.square(function(images)))
                    optimizer.apply(tape.gradient(loss, values), model.trainable_variables)
            return [to_numpy(v) for v in model.variables], [counter_of(x) for x in model._flatten_layers()
                                                            if isinstance(x, PortableDropout) and x.rate]  # fmt: skip

        (expected, counters), (found, counters_found) = steps(lambda f: f), steps(keras.remat)
        assert counters == counters_found
        assert set(counters) == {3}
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


if BACKEND == "torch":

    @pytest.mark.parametrize("recomputed", RECOMPUTED)
    def test_forward_passes_without_gradients_may_come_between(recomputed):
        layer = dropout()
        x = torch.tensor(TOKENS, requires_grad=True)
        loss = RECOMPUTED[recomputed](lambda x: layer(x, training=True) * 1.0)(x).square().sum()
        with torch.no_grad():
            layer(x, training=True)
        layer(x, training=True)
        loss.backward()
        np.testing.assert_allclose(x.grad.numpy(), random.dropout_mask(3, 0, TOKENS.shape, 0.5) * 8 * TOKENS, rtol=1e-6)
        assert counter_of(layer) == 3

    @pytest.mark.parametrize("recomputed", RECOMPUTED)
    def test_gradients_of_several_forward_passes_may_wait_for_each_other(recomputed):
        layer = dropout()
        wrapped = RECOMPUTED[recomputed](lambda x: layer(x, training=True) * 1.0)
        tensors = [torch.tensor(TOKENS, requires_grad=True) for _ in range(3)]
        losses = [wrapped(x).square().sum() for x in tensors]
        for counter in (1, 0, 2):
            losses[counter].backward()
            keep = random.dropout_mask(3, counter, TOKENS.shape, 0.5)
            np.testing.assert_allclose(tensors[counter].grad.numpy(), keep * 8 * TOKENS, rtol=1e-6)

    @pytest.mark.parametrize("recomputed", RECOMPUTED)
    def test_a_second_backward_pass_repeats_the_mask_too(recomputed):
        layer = dropout()
        x = torch.tensor(TOKENS, requires_grad=True)
        loss = RECOMPUTED[recomputed](lambda x: layer(x, training=True) * 1.0)(x).square().sum()
        loss.backward(retain_graph=True)
        layer(x, training=True)
        loss.backward()
        np.testing.assert_allclose(
            x.grad.numpy(), random.dropout_mask(3, 0, TOKENS.shape, 0.5) * 16 * TOKENS, rtol=1e-6
        )

    def test_a_remat_scope_recomputes_rightly():
        expected_layer = dropout()
        (expected,) = gradient(lambda x: expected_layer(x * x, training=True))
        with keras.RematScope(mode="full"):
            layer = dropout()
            (found,) = gradient(lambda x: layer(x * x, training=True))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert counter_of(layer) == 1

    @pytest.mark.parametrize("use_reentrant", [False, True])
    def test_torchs_random_state_need_not_be_kept(use_reentrant):
        layer = dropout()

        def function(x):
            return checkpoint(
                lambda x: layer(x, training=True) * 1.0, x, use_reentrant=use_reentrant, preserve_rng_state=False
            )

        (found,) = gradient(function)
        np.testing.assert_allclose(found, random.dropout_mask(3, 0, TOKENS.shape, 0.5) * 8 * TOKENS, rtol=1e-6)

    @pytest.mark.parametrize("recomputed", RECOMPUTED)
    def test_forward_passes_of_one_torch_seed_have_each_its_mask(recomputed):
        layer = dropout()
        wrapped = RECOMPUTED[recomputed](lambda x: layer(x, training=True) * 1.0)
        tensors = [torch.tensor(TOKENS, requires_grad=True) for _ in range(3)]
        losses = []
        for x in tensors:
            torch.manual_seed(0)
            losses.append(wrapped(x).square().sum())
        for counter in (1, 0, 2):
            losses[counter].backward()
            keep = random.dropout_mask(3, counter, TOKENS.shape, 0.5)
            np.testing.assert_allclose(tensors[counter].grad.numpy(), keep * 8 * TOKENS, rtol=1e-6)

    @pytest.mark.parametrize("recomputed", RECOMPUTED)
    def test_threads_repeat_each_its_masks(recomputed):
        layer = dropout()
        wrapped = RECOMPUTED[recomputed](lambda x: layer(x, training=True) * 1.0)
        differences = []

        def work():
            for _ in range(20):
                x = torch.tensor(TOKENS, requires_grad=True)
                y = wrapped(x)
                y.square().sum().backward()
                differences.append((x.grad - 4 * y.detach()).abs().max().item())  # of (2 x)^2, where y is not 0

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(differences) == 160
        assert max(differences) < 1e-5
        assert counter_of(layer) == 160

    def test_a_draw_in_a_backward_pass_that_recomputes_nothing_is_an_error():
        layer = dropout()

        class Own(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return layer(x, training=True)

            @staticmethod
            def backward(ctx, gradient):
                return layer(gradient, training=True)

        with pytest.raises(RuntimeError, match=r"Call `torch\.utils\.checkpoint\.checkpoint`"):
            gradient(Own.apply)

    def test_dropout_takes_no_random_numbers_of_torch():
        layer = block()
        torch.manual_seed(0)
        expected = torch.rand(3)
        torch.manual_seed(0)
        gradient(lambda x: layer(x, training=True))
        gradient(keras.remat(lambda x: layer(x, training=True)))
        with torch.no_grad():
            layer(torch.tensor(TOKENS), training=True)
        np.testing.assert_array_equal(torch.rand(3).numpy(), expected.numpy())

    @pytest.mark.parametrize("recomputed", RECOMPUTED)
    def test_states_are_kept_as_long_as_their_graph(recomputed):
        layer = dropout()
        x = torch.tensor(TOKENS, requires_grad=True)
        with torch.no_grad():
            layer(x, training=True)
        assert not layer._draws._checkpoints
        y = RECOMPUTED[recomputed](lambda x: layer(x, training=True))(x)
        assert len(layer._draws._checkpoints) == 1
        del y
        gc.collect()
        assert not layer._draws._checkpoints

    def test_vmap_goes_on_as_before():
        layer = dropout()
        with torch.no_grad():
            output = torch.vmap(lambda x: layer(x, training=True))(torch.tensor(TOKENS))
        keep = random.dropout_mask(3, 0, TOKENS.shape[1:], 0.5)
        np.testing.assert_array_equal(output.numpy(), np.where(keep, 2 * TOKENS, 0))


if BACKEND == "tensorflow":

    @pytest.mark.parametrize("recomputed", RECOMPUTED)
    @pytest.mark.parametrize("make", [dropout, block])
    def test_in_a_graph_gradients_and_counters_are_those_of_a_plain_step(make, recomputed):
        layer = make()

        def function(x):
            return layer(x * x, training=True)

        wrapped = RECOMPUTED[recomputed](function)
        assert_recomputes(function, wrapped, layer, gradient=graph_gradient, rtol=1e-5)

    def test_in_a_graph_segments_may_share_a_layer_and_lie_in_each_other():
        layer = dropout()

        def part(x):
            return layer(x * x + 1, training=True)

        inner = keras.remat(part)
        outer = keras.remat(lambda x: part(inner(part(inner(x))) * x))
        plain = lambda x: part(part(part(part(x))) * x) + part(x)  # noqa: E731
        assert_recomputes(plain, lambda x: outer(x) + inner(x), layer, gradient=graph_gradient, rtol=1e-5)

    def test_a_graph_repeats_its_masks_in_every_step():
        layer = dropout()
        wrapped = keras.remat(lambda x: layer(x, training=True) * 1.0)

        @tf.function
        def step(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(tf.square(wrapped(x)))
            return tape.gradient(loss, x)

        for counter in range(3):
            keep = random.dropout_mask(3, counter, TOKENS.shape, 0.5)
            np.testing.assert_allclose(to_numpy(step(tf.constant(TOKENS))), keep * 8 * TOKENS, rtol=1e-6)
        assert counter_of(layer) == 3

    def test_a_tape_outside_of_the_graph_sees_the_same():
        layer = dropout()
        wrapped = tf.function(keras.remat(lambda x: layer(x, training=True) * 1.0))
        for counter in range(2):
            keep = random.dropout_mask(3, counter, TOKENS.shape, 0.5)
            np.testing.assert_allclose(gradient(wrapped)[0], keep * 8 * TOKENS, rtol=1e-6)
        assert counter_of(layer) == 2

    def test_a_persistent_tape_repeats_the_masks_each_time():
        layer = dropout()
        x = tf.constant(TOKENS)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(keras.remat(lambda x: layer(x, training=True) * 1.0)(x)))
        keep = random.dropout_mask(3, 0, TOKENS.shape, 0.5)
        for _ in range(2):
            np.testing.assert_allclose(to_numpy(tape.gradient(loss, x)), keep * 8 * TOKENS, rtol=1e-6)
            layer(x, training=True)

    def test_a_remat_scope_recomputes_rightly():
        expected_layer = dropout()
        (expected,) = gradient(lambda x: expected_layer(x * x, training=True))
        with keras.RematScope(mode="full"):
            layer = dropout()
            (found,) = gradient(lambda x: layer(x * x, training=True))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert counter_of(layer) == 1

    def test_a_graph_inside_of_the_segment_is_an_error():
        layer = dropout()
        wrapped = keras.remat(tf.function(lambda x: layer(x * x, training=True)))
        with pytest.raises(RuntimeError, match=r"Put the `tf\.function` outside"):
            gradient(wrapped)

    def test_memory_of_forward_passes_is_bounded():
        layer = dropout()
        wrapped = keras.remat(lambda x: layer(x, training=True))
        for _ in range(10):
            wrapped(tf.ones((1, 1)))
        gc.collect()
        assert not layer._draws._segments  # the inputs are gone
        x = tf.ones((1, 1))
        for _ in range(1100):
            wrapped(x)
        assert len(layer._draws._segments) == 1024


if BACKEND == "jax":
    import jax

    @pytest.mark.parametrize("make", [dropout, block])
    @pytest.mark.parametrize("recomputed", [keras.remat, jax.checkpoint])
    def test_with_the_state_handed_in_and_out_gradients_and_counters_are_those_of_a_plain_step(make, recomputed):
        layer = make()

        def step(wrap, x, trainable, state):
            def loss(x):
                call = wrap(lambda x, trainable, state: layer.stateless_call(trainable, state, x * x, training=True))
                y, new_state = call(x, trainable, state)
                return (y * y).sum(), new_state

            (_, new_state), gradient = jax.value_and_grad(loss, has_aux=True)(x)
            return gradient, new_state

        trainable = [v.value for v in layer.trainable_variables]
        expected_state = state = [v.value for v in layer.non_trainable_variables]
        for _ in range(2):
            expected, expected_state = jax.jit(lambda *a: step(lambda f: f, *a))(TOKENS, trainable, expected_state)
            found, state = jax.jit(lambda *a: step(recomputed, *a))(TOKENS, trainable, state)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
            np.testing.assert_equal([np.asarray(x) for x in state], [np.asarray(x) for x in expected_state])

    @pytest.mark.parametrize("transformed", [keras.remat, jax.checkpoint, jax.jit])
    def test_a_counter_that_cannot_come_out_is_an_error_and_the_layer_stays_sound(transformed):
        layer = dropout()
        with pytest.raises(RuntimeError, match=r"Call `layer\.stateless_call"):
            jax.grad(lambda x: transformed(lambda x: layer(x, training=True))(x).sum())(TOKENS)
        keep = random.dropout_mask(3, 0, TOKENS.shape, 0.5)
        np.testing.assert_array_equal(to_numpy(layer(TOKENS, training=True)), np.where(keep, 2 * TOKENS, 0))

    @pytest.mark.parametrize("transformed", [keras.remat, jax.checkpoint, jax.jit])
    def test_a_state_that_is_not_handed_in_is_an_error(transformed):
        layer = dropout()
        state = layer.seed_generator.state

        def step(x, value):
            with keras.StatelessScope(state_mapping=[(state, value)]) as scope:
                y = transformed(lambda x: layer(x, training=True))(x)
            return y, scope.get_current_value(state)

        with pytest.raises(RuntimeError, match=r"Call `layer\.stateless_call"):
            jax.jit(step)(TOKENS, state.value)
        assert counter_of(layer) == 0

    def test_a_model_that_recomputes_dropout_in_fit_is_an_error_that_says_what_to_do():
        class Recomputed(keras.Model):
            def __init__(self):
                super().__init__()
                self.dropout = PortableDropout(0.5, seed=3)

            def call(self, x, training=False):
                return keras.remat(lambda x: self.dropout(x, training=training))(x)

        model = Recomputed()
        model.compile("sgd", "mse")
        with pytest.raises(RuntimeError, match="leave dropout out"):
            model.fit(TOKENS, TOKENS, verbose=0)

    def test_a_state_that_the_function_closes_over_is_no_error():
        layer = dropout()

        def step(x, value):
            return keras.remat(lambda x: layer.stateless_call([], [value], x, training=True))(x)

        y, (state,) = jax.jit(step)(TOKENS, layer.seed_generator.state.value)
        keep = random.dropout_mask(3, 0, TOKENS.shape, 0.5)
        np.testing.assert_array_equal(np.asarray(y), np.where(keep, 2 * TOKENS, 0))
        assert np.asarray(state).tolist() == [3, 1]
