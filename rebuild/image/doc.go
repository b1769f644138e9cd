// Package image makes the image that servers boot: Debian's kernel, an initramfs with mayfly-stub, and a read-only EROFS root with
// what image.toml lists. Lock turns image.toml into a lock file of package hashes, with the host's apt as the only way to the
// archive; Build turns a lock file, a store of those packages and our programs into the same bytes anywhere.
//
// Read in this order: spec.go (what goes in), lockfile.go and lock.go (which packages, through apt.go), deb.go (unpacking), tree.go (the
// root in memory), root.go, libraries.go, modules.go and stub.go (laying it), build.go (writing it), programs.go (our own).
//
// It runs no maintainer script and no program of a package, installs nothing, and writes nothing outside its store and output
// directories. It trusts apt's signed records for what a lock names; from there on only hashes count. Who may boot what it
// makes is decided by package release.
package image
