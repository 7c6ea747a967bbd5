"""What kerasext uses of Keras that Keras does not document.

All of it is the same in Keras 3.12 to 3.15, which the tests run with. A later version that differs
is minded here. `docs/keras.md` says what each of it is for, and shows it.
"""
