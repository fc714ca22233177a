// Package lifecycle reads Amazon ECR's lifecycle policies and decides by them
// which images of a repository go. It knows no store: who calls it says what
// there is, and does what it says.
//
// # Promises
//
// A policy is what ECR takes (user guide, "Lifecycle policy parameters"), and
// with expire also sinceImagePulled, which ECR has for transition only. What is
// wrong with a text is told at once, each problem with its place. (TestParse,
// TestParseTellsAll, TestLimits)
//
// What parses is written back as a policy that says the same. (FuzzParse)
//
// An image is acted on once at most, and never by a rule behind the first one
// whose tags it has, whether that one acts or not; it still counts there. An
// image that an index lists does not go before the index. (TestEvaluate,
// TestEvaluateIndex, TestEvaluateKept, FuzzParse)
//
// The manifests that an index lists and artifacts, such as signatures, belong to
// something: without a tag they are neither counted nor acted on, and go with
// it. (TestEvaluateIndex, TestEvaluateArtifacts)
package lifecycle
