// Package doctor checks the node that larder runs on: the store's disk, what
// containerd reads, and what the kubelet does when the disk fills. It changes
// nothing.
//
// What cannot be read is [Unknown] and never [OK]. (TestUnreadableIsUnknown)
package doctor
