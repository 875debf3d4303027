"""The protocols of kubelet's plugins: gRPC over unix sockets."""
