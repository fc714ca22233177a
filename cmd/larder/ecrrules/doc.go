// Package ecrrules carries pull through cache rules and repository creation
// templates between larder and Amazon ECR: it reads what ECR's
// DescribePullThroughCacheRules and DescribeRepositoryCreationTemplates say,
// writes larder's [[rules]] and [[templates]], and writes both as an AWS account
// takes them.
//
// # Promises
//
// What is read is hostile: at most 4 MiB and 1000 rules, each valid by
// [remotes.Rule.Validate] and ECR's own bounds; an error names the entry. What
// larder does not know is left alone. The same holds for templates. (TestDecode,
// TestDecodeRefuses, TestDescribeRefuses, TestDecodeTemplates,
// TestDecodeTemplatesRefuses)
//
// What is written reads back to the same values, whatever is in them: TOML by
// larder's configuration, JSON by Decode, YAML, shell and HCL by their
// programs' rules. (TestRoundTrip, TestTOMLReadsBack, TestShellReadsBack,
// TestHCLQuote, TestYAMLReadsBack, FuzzDecode)
//
// Nothing is left out silently: every rule, template or key that an account has no place
// for is a warning, and a comment where the format has comments.
// (TestExportGolden, TestExportWarns, TestTemplateNotesAreOneLine)
package ecrrules
