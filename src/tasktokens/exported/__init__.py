"""Exported models in use: NumPy, Pillow and a runtime (ONNX Runtime, OpenVINO) are all that is imported here."""
