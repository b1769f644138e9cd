// Package debian finds out which tools a command lacks and installs them with apt-get: non-interactive, waiting for the package
// lock, with no service started. What goes into the image is no business of it: that is downloaded and unpacked, never installed.
//
// It changes the machine only as root, and only by apt-get and one file, /usr/sbin/policy-rc.d, that is there while apt-get runs
// and says "start nothing". A run that was killed leaves that file behind, which then says nothing any more; Sweep, called at the
// start of every command, takes it away. A policy-rc.d that somebody else put there is left alone.
package debian
