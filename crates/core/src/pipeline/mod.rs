//! The graph of components: building, fan-out, start and drain order.
