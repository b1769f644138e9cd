package sandbox

import (
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	access "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// What directories may be used for. None of it is execution, and none makes device nodes, pipes, sockets or symbolic links.
const (
	readAccess   = access.AccessFSReadFile | access.AccessFSReadDir
	writeAccess  = readAccess | access.AccessFSWriteFile | access.AccessFSTruncate | access.AccessFSMakeReg | access.AccessFSMakeDir | access.AccessFSRemoveFile | access.AccessFSRemoveDir | access.AccessFSRefer
	removeAccess = access.AccessFSRemoveFile
)

// restrictFiles lets the process reach the rules' files and TCP ports only, as far as the kernel knows how.
func restrictFiles(rules Rules) error {
	var list []landlock.Rule
	add := func(rights landlock.AccessFSSet, paths ...string) {
		list = append(list, landlock.PathAccess(rights, paths...))
	}
	for _, p := range rules.Read {
		rights := landlock.AccessFSSet(readAccess)
		if !isDir(p) {
			rights = access.AccessFSReadFile
		}
		add(rights, p)
	}
	if len(rules.Write) > 0 {
		add(writeAccess, rules.Write...)
	}
	if len(rules.Remove) > 0 {
		add(removeAccess, rules.Remove...)
	}
	for _, port := range rules.Connect {
		list = append(list, landlock.ConnectTCP(port))
	}
	// A connection from a certain address is bound to it first, at a port that the kernel chooses. The filter of calls keeps the
	// process from listening there.
	list = append(list, landlock.BindTCP(0))
	if rules.Resolve {
		for _, p := range resolverFiles {
			if !exists(p) {
				continue
			}
			if isDir(p) {
				add(readAccess, p)
			} else {
				add(access.AccessFSReadFile, p)
			}
		}
		list = append(list, landlock.BindUDP(0), landlock.ConnectSendUDP(dnsPort))
	}
	if err := newest.BestEffort().Restrict(list...); err != nil {
		return fmt.Errorf("restricting files and ports: %w", err)
	}
	return nil
}

// newest is all that the library can ask for; older kernels enforce what they know (Probe says what that is not).
var newest = landlock.V11

// landlockVersion is the kernel's, 0 without Landlock.
func landlockVersion() int {
	version, err := access.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return version
}
