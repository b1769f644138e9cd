// Package simhost plays servers: machines that a real rotate.Runner switches off and on, and what they say afterwards, written into the
// store as `fleetctl serve` would write it. A boot takes as long as its Work says, uses its ticket up, joins, reports health and, when it
// is told to drain, has drained after a while. Faults hang, refuse or lose what a test names.
//
// The machines count what was done to them, so that a test can see that no epoch was booted twice. They are reached from other processes by
// a socket in the file system (serve.go), as a BMC's network is not the store's.
//
// It is no test of images, keys or networks: nothing here boots. It trusts its callers.
//
// Read fleet.go, hosts.go, feed.go, serve.go.
package simhost
