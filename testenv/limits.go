package main

import "time"

// Bounds of waiting. They are generous: without KVM and on two busy cores everything takes a multiple.
const (
	commandWait = 15 * time.Second  // for a program's output after it was asked to end
	readyLimit  = 60 * time.Second  // for a daemon to listen
	bootLimit   = 240 * time.Second // for a server to join and be healthy
	rotateLimit = 20 * time.Minute  // for all servers
	sshLimit    = 60 * time.Second  // for one login
	tunnelLimit = 60 * time.Second  // for a VPN session to stand
	auditLimit  = 20 * time.Second  // for a record to be in the audit log
	silentLimit = 3 * time.Second   // no answer within this is no answer
	fetchLimit  = 20 * time.Second  // for one fetch through the tunnel
	dnsTry      = 3 * time.Second   // for one try of a DNS query
	dnsTries    = 3                 // as resolvers do over UDP
	samplePause = 200 * time.Millisecond
	fetchPause  = 50 * time.Millisecond
	maxSaid     = 2000 // bytes of a failed program's words
	fetchBytes  = 256 << 10
	pullBytes   = 8 << 20
	minFetches  = 50              // fewer than this during a rotation prove nothing, of fetches and of lists
	fetchEvery  = 2 * time.Second // nor do fewer than one in this time, on a machine that emulates all of it and does other things
	slowFetch   = 5 * time.Second // longer than this, and the tunnel was stuck
)
