//! Namespaces, scenarios, the demo and the test runner of Tandem.
