//! Behaviour tests of both services; everything is in the test target `behaviour`.
