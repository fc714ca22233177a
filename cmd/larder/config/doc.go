// Package config is larder's configuration: one TOML schema, one tree of Go
// structs. It promises:
//
//   - No file is needed: [Default] is a whole configuration.
//   - A file changes only what it names. An unknown key is an error, never
//     ignored, so that a misspelt key cannot silently keep its default.
//   - [Load] reports all problems of a file at once, each as an [*Error] with
//     file, line and key.
//   - A loaded configuration holds paths of secrets, never secrets: it can be
//     printed whole.
//   - [Append] replaces a file by one that Load and its caller accept, or leaves it as it was.
//     (TestAppend, TestAppendKeepsFileOnFailure)
//
// The comments on the fields are the user's documentation: the file
// config.toml.example is generated from them.
package config
