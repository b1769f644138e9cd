// Package recording writes what a session showed as asciicast v2, encrypted to age recipients while it is written, and reads it back.
//
// Invariants. Nothing of a session is on disk in the clear. A file that lacks its end is told from a whole one. Reading is bounded: a
// line, a value and a delay that no writer of ours makes are refused.
//
// What it does not do: it records nothing that the engineer types (a password would be in it), only what the server answers.
//
// References: docs/formats/recording.md, the asciicast v2 format, the age file format (C2SP).
package recording
