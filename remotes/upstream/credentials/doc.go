// Package credentials finds what to show to an upstream: [Chain] implements
// upstream.Credentials over the sources that a node has. It asks AWS through
// its SDK, and runs the programs that its configuration names; it writes no
// files.
//
// # Promises
//
// Which source. A rule's secret file, AWS secret or role; docker's config.json
// and the credential helpers it names; the kubelet's credential provider
// plugins; ECR's tokens with the node's own AWS identity: the first that knows
// the repository. (TestOrderOfSources, TestRulesMatch, TestDockerAuths,
// TestDockerHelpers, TestDockerStore, TestKubeletPlugin, TestKubeletOrder,
// TestECREndpoints, TestRoleIsAssumed, TestSecretsManager)
//
// No silent anonymity. What a rule names and cannot be had is an error: nothing
// stands in for it. Any other source that fails is passed over for a later
// one, with a warning, and is an error where no later one knows the host. Two
// things alone are no error: a source that has nothing, and ECR's public
// gallery, which all may read, without a token; if one was refused, that is
// logged. (TestSecretFileThatFails, TestSecretsManagerThatFails,
// TestFailingSourceIsPassedOver, TestECRDenied, TestECRWithoutAWS)
//
// What is remembered. From half its life on a credential is asked for anew
// while it is still given; if no new one can be had, it is given after its
// life too, with a warning. Lives: ECR's tokens as AWS says, a plugin's answer
// as the plugin says (cacheDuration, cacheKeyType), a secret of AWS an hour, a
// helper's word 15 minutes; files are read for each use. That there is
// nothing holds for two minutes, a failure for 30 seconds.
// (TestRefreshAtHalfLife, TestStaleWhenRefreshFails, TestECRHalfLifeAndStale,
// TestNothingIsAnAnswer, TestNothingDoesNotReplaceAValue,
// TestZeroLifeIsNotRemembered, TestKubeletCacheKey, TestSecretFileIsReadAnew,
// TestFailureIsRememberedBriefly)
//
// What was refused. After Refuse the source is asked before the next answer,
// at most once in 30 seconds; if it cannot be asked, the refused one is given
// again. (TestRefuseAsksAnew, TestRefuseRunsPluginsAnew)
//
// Who waits for whom. A question is asked once for all who wait for it, and
// goes on when they leave; at most eight of a kind run at a time, each up to
// ten seconds, programs with all that they started.
// (TestManyCallersAskOnce, TestOneProgramForManyCallers,
// TestKubeletOneRunForManyImages, TestCallerLeavesQuestionStays,
// TestQuestionsAreBounded, TestProgramEndsInTime)
//
// Outside AWS. That there are no AWS credentials is found out within three
// seconds, at once where no metadata service answers at all.
// (TestNoMetadataServiceIsFoundOutFast, TestMetadataServiceIsNotWaitedFor,
// TestEnvironmentOfAWS)
//
// What it believes. Files, outputs and answers are bounded, and so is what is
// remembered for names that clients make up; only text that is a registry host
// and a repository gets to programs and APIs. (TestMemoryForMadeUpNames,
// TestMemoryIsBounded, TestNamesAreChecked, TestDockerHelpers)
//
// The kubelet's patterns match as they do there: also in that a pattern
// without a port matches no image with one, and that a path's end may be in
// the middle of a segment. (TestMatchImages, FuzzMatchImages)
//
// Secrets are in no log and no error: what programs write, or AWS's SDK and
// oras' parser say of what they read, is not repeated. (TestSecretIsNotPrinted,
// TestHelpersErrorsAreNotPassedOn, and every test of a failure)
package credentials
