// Package history says whether a git repository came about by the rule of two: from a given commit on, every commit is signed by somebody's
// enrolled key, and every change was approved by the signature of another person, one that touches a deep path by two others.
//
// It is of the fleet's own people: the names and keys are an argument. A signature of a commit is git's own (gpg.format = ssh, namespace
// "git"). An approval is an SSH signature too, in a git note under refs/notes/mayfly-approvals: of a statement that names the fleet, the commit,
// and the SHA-256 of all that the commit's tree holds, so that nothing rests on SHA-1 alone. See docs/formats/history.md.
//
//	git.go       the repository, through git's own program, with nothing of the machine's or the user's configuration
//	objects.go   many objects by one process of it
//	commit.go    a commit object, its signature and what was signed
//	tree.go      what a tree has, path by path
//	content.go   the SHA-256 of a tree's content
//	approval.go  what an approval says, and the notes they stand in
//	verify.go    the rule
//	refusal.go   why a history does not pass
//	export.go    the files of a commit
package history
