"""What crosses a wire: frames and method tables. Pure: no I/O."""
