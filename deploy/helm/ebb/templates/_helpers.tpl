{{/* Names: those of the release, "ebb" for a release called so. */}}
{{- define "ebb.name" -}}
{{- if contains "ebb" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-ebb" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "ebb.serviceAccount" -}}
{{ default (include "ebb.name" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "ebb.selector" -}}
app.kubernetes.io/name: ebb
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ebb.labels" -}}
{{ include "ebb.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "ebb.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end }}

{{/* The port of an address HOST:PORT. */}}
{{- define "ebb.port" -}}
{{ regexFind "[0-9]+$" . }}
{{- end }}

{{/* The API servers, one per line: given ones, else the addresses behind the Service
     "kubernetes", which only a client of a cluster can see. */}}
{{- define "ebb.servers" -}}
{{- if .Values.kubeApi.servers }}
{{- range .Values.kubeApi.servers }}
{{ . }}
{{- end }}
{{- else if not .Values.kubeApi.nodeKubeconfig }}
{{- range dig "items" (list) (lookup "discovery.k8s.io/v1" "EndpointSlice" "default" "") }}
{{- if eq (dig "metadata" "labels" "kubernetes.io/service-name" "" .) "kubernetes" }}
{{- $port := (index .ports 0).port }}
{{- $v6 := eq .addressType "IPv6" }}
{{- range .endpoints }}{{ range .addresses }}
https://{{ if $v6 }}[{{ . }}]{{ else }}{{ . }}{{ end }}:{{ $port }}
{{- end }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What all pods of ebb have. */}}
{{- define "ebb.pod" -}}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
enableServiceLinks: false
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Probes: never /healthz, which fails while the node drains. */}}
{{- define "ebb.probe" -}}
httpGet:
  host: 127.0.0.1
  path: /livez
  port: {{ include "ebb.port" .Values.agent.healthAddr }}
{{- end }}

{{/* What cleanup and the agent are given of the node. */}}
{{- define "ebb.mounts" -}}
- name: bpffs
  mountPath: /sys/fs/bpf
- name: state
  mountPath: /run/ebb
- name: sysctl
  mountPath: /host/proc/sys/net
{{- end }}

{{- define "ebb.volumes" -}}
- name: bpffs
  hostPath:
    path: {{ .Values.paths.bpffs }}
    type: Directory
- name: state
  hostPath:
    path: {{ .Values.paths.state }}
    type: DirectoryOrCreate
- name: sysctl
  hostPath:
    path: /proc/sys/net
    type: Directory
{{- end }}

{{/* Why each capability: docs/security.md. */}}
{{- define "ebb.security" -}}
runAsUser: 0
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
  add:
  - BPF
  - NET_ADMIN
  - PERFMON
  {{- if .Values.agent.closePodSockets }}
  - SYS_ADMIN
  - SYS_PTRACE
  {{- end }}
{{- end }}
