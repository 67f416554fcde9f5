"""The protobuf messages of the wire, compiled from ``example.proto`` (see CONTRIBUTING)."""
