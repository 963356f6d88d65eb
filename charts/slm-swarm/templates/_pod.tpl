{{/* What the pods of operator, router and egress have in common: the restricted level of Pod Security, and where they go. */}}

{{- define "slm-swarm.pod" -}}
serviceAccountName: {{ include "slm-swarm.fullname" .root }}-{{ .component }}
automountServiceAccountToken: true
enableServiceLinks: false
securityContext:
  {{- include "slm-swarm.podSecurity" . | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else }}
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "slm-swarm.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "slm-swarm.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "slm-swarm.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* No versions in the labels: a new chart alone is no reason to replace a pod. */}}
{{- define "slm-swarm.template" -}}
metadata:
  labels:
    {{- include "slm-swarm.selector" . | nindent 4 }}
    app.kubernetes.io/part-of: slm-swarm
    {{- with .root.Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with .values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ .component }}
    {{- with .values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "slm-swarm.container" -}}
name: {{ .component }}
image: {{ include "slm-swarm.image" (dict "root" .root "repository" .root.Values.image.repository "digest" .root.Values.image.digest) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- include "slm-swarm.containerSecurity" . | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
resources:
  {{- toYaml .values.resources | nindent 2 }}
{{- end -}}

{{/* The certificate of the endpoint, or parts of it, as a source of a projected volume. */}}
{{- define "slm-swarm.accessCertificate" -}}
{{- $access := .root.Values.router.access -}}
- secret:
    name: {{ $access.tlsSecretName | default $access.secretName }}
    items:
      {{- range .keys }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end -}}
