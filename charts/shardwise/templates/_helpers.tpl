{{/* The prefix of every object's name. */}}
{{- define "shardwise.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the operator's pod; never changes between versions. */}}
{{- define "shardwise.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "shardwise.labels" -}}
{{ include "shardwise.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "shardwise.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "shardwise.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* An image's reference; called with (list image appVersion). A digest wins over a tag. */}}
{{- define "shardwise.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default (index . 1) $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What the operator may do with the objects of the namespaces that it serves. */}}
{{- define "shardwise.jobRules" -}}
- apiGroups: [shardwise.dev]
  resources: [optimizationjobs]
  verbs: [get, list, watch, delete]
- apiGroups: [shardwise.dev]
  resources: [optimizationjobs/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, create]
{{- if .Values.networkPolicy.enabled }}
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create]
{{- end }}
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create, patch]
{{- end -}}

{{/* What the operator is told. */}}
{{- define "shardwise.env" -}}
{{- $lease := .Values.operator.lease -}}
- name: SHARDWISE_OPERATOR_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: SHARDWISE_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: SHARDWISE_POD_UID
  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
- name: SHARDWISE_POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: SHARDWISE_LEASE
  value: {{ include "shardwise.fullname" . }}
- name: SHARDWISE_LEASE_DURATION_SECONDS
  value: {{ $lease.durationSeconds | quote }}
- name: SHARDWISE_LEASE_RENEW_SECONDS
  value: {{ $lease.renewSeconds | quote }}
- name: SHARDWISE_LEASE_RETRY_SECONDS
  value: {{ $lease.retrySeconds | quote }}
- name: SHARDWISE_NAMESPACES
  value: {{ join "," .Values.watchNamespaces | quote }}
- name: SHARDWISE_TRAINER_IMAGE
  value: {{ include "shardwise.image" (list .Values.trainer.image .Chart.AppVersion) | quote }}
- name: SHARDWISE_TRAINER_PULL_POLICY
  value: {{ .Values.trainer.image.pullPolicy }}
- name: SHARDWISE_EXCHANGE
  value: {{ .Values.trainer.exchange }}
- name: SHARDWISE_NETWORK_POLICIES
  value: {{ .Values.networkPolicy.enabled | quote }}
- name: SHARDWISE_METRICS_FROM
  value: {{ .Values.networkPolicy.metricsFrom | default list | toJson | quote }}
- name: SHARDWISE_COORDINATOR_SERVICE
  value: {{ include "shardwise.fullname" . }}-coordinator.{{ .Release.Namespace }}.svc
- name: SHARDWISE_COORDINATOR_PORT
  value: {{ .Values.coordinator.port | quote }}
- name: SHARDWISE_HEALTH_PORT
  value: {{ .Values.health.port | quote }}
- name: SHARDWISE_METRICS_PORT
  value: {{ .Values.metrics.port | quote }}
- name: SHARDWISE_METRICS_TLS
  value: {{ .Values.metrics.tls | quote }}
- name: SHARDWISE_METRICS_AUTHENTICATION
  value: {{ .Values.metrics.authentication | quote }}
- name: SHARDWISE_GRACE_SECONDS
  value: {{ .Values.operator.graceSeconds | quote }}
- name: SHARDWISE_REPORT_SECONDS
  value: {{ .Values.operator.reportSeconds | quote }}
- name: SHARDWISE_LOG_LEVEL
  value: {{ .Values.operator.logLevel }}
{{- end -}}
