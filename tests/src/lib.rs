//! Behaviour tests of both services. All tests are in the test target `behaviour`.
