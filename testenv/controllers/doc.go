// Package controllers has several controllers share one fleet: real rotate.Runners in processes and network namespaces of their own, a real
// etcd over mutual TLS, simulated hosts (testenv/simhost) whose power they reach by another way. One controller is killed, one is cut off, one
// is stopped past its claims and goes on, and etcd itself is started anew; nothing may be lost and nothing done twice.
//
// Child is what the processes do; the test starts itself again with its arguments. Read child.go, controllers_test.go.
package controllers
