"""What workflow authors call. No submodule is public: every name is importable from `derecho`."""
